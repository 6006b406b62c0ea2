"""Stub."""

import argparse
from typing import Any

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Stub."""


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Stub."""
    return {}


def show(result: dict[str, Any]) -> str:
    """Stub."""
    return ""
