"""Go back to an earlier version, or forward again."""

import argparse
from typing import Any

from app.store_option import store_of

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The version."""
    parser.add_argument("version", metavar="N", type=int, help="the version that is to be the current one")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Verify the version and move CURRENT; no Prefect is needed."""
    from tasks.steps.roll_back import roll_back  # noqa: PLC0415

    return {"current": roll_back(args.version, store=store_of(args))}


def show(result: dict[str, Any]) -> str:
    """What is current now."""
    return f"version {result['current']} is the current one"
