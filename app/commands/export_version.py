"""Write a version out: all that it stands on as one file, or its faces as Parquet."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.store_option import store_of

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The version, where it goes, and as what."""
    parser.add_argument("version", metavar="N", type=int, help="a version's number")
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="where it goes: one uncompressed tar; with --parquet a folder"
    )
    parser.add_argument(
        "--parquet",
        action="store_true",
        help="write a folder of Parquet files instead, a row a face with its embedding, which vector databases load",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Export; no Prefect is needed."""
    where = {"version": args.version, "file": str(args.file)}
    if args.parquet:
        from tasks.steps.export_faces import export_faces  # noqa: PLC0415

        return where | asdict(export_faces(args.version, args.file, store=store_of(args)))
    from tasks.steps.move_version import export_version  # noqa: PLC0415

    return where | {"bytes": export_version(args.version, args.file, store=store_of(args))}


def show(result: dict[str, Any]) -> str:
    """Where it went."""
    what = f"the {result['faces']:,} faces of version" if "faces" in result else "version"
    files = f", in {result['files']} files" if "files" in result else ""
    return f"wrote {what} {result['version']} into {result['file']}: {result['bytes']:,} bytes{files}"
