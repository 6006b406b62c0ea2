"""Publish a version that `export` wrote, under the next number."""

import argparse
from pathlib import Path
from typing import Any

from app.store_option import store_of

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file."""
    parser.add_argument("file", metavar="FILE", type=Path, help="a file that `lookalike export` wrote")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Import; no Prefect is needed."""
    from tasks.steps.move_version import import_version  # noqa: PLC0415

    return {"version": import_version(args.file, store=store_of(args)), "file": str(args.file)}


def show(result: dict[str, Any]) -> str:
    """What it became."""
    return f"published {result['file']} as version {result['version']}, the current one"
