"""Write a version and all that it stands on into one file."""

import argparse
from pathlib import Path
from typing import Any

from app.store_option import store_of

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The version and the file."""
    parser.add_argument("version", metavar="N", type=int, help="a version's number")
    parser.add_argument("file", metavar="FILE", type=Path, help="where it goes: one uncompressed tar")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Export; no Prefect is needed."""
    from tasks.steps.move_version import export_version  # noqa: PLC0415

    written = export_version(args.version, args.file, store=store_of(args))
    return {"version": args.version, "file": str(args.file), "bytes": written}


def show(result: dict[str, Any]) -> str:
    """Where it went."""
    return f"wrote version {result['version']} into {result['file']}: {result['bytes']:,} bytes"
