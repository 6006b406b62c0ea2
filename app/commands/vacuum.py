"""Remove old versions, and what only they stand on."""

import argparse
from typing import Any

from app.store_option import store_of

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What stays."""
    parser.add_argument("--keep", metavar="N", type=int, default=3, help="versions that stay in any case (default: 3)")
    parser.add_argument(
        "--older-than", metavar="DAYS", type=float, default=0.0, help="remove only versions older than this"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Vacuum; no Prefect is needed."""
    from tasks.steps.vacuum_store import vacuum_store  # noqa: PLC0415

    done = vacuum_store(store_of(args), keep=args.keep, older_than_days=args.older_than, dry_run=args.dry_run)
    return done.as_json()


def show(result: dict[str, Any]) -> str:
    """What went and what is left."""
    verb = "would remove" if result["dry_run"] else "removed"
    removed, kept = (", ".join(map(str, result[name])) or "none" for name in ("removed", "kept"))
    lines = [
        f"{verb} versions {removed}: {result['files']:,} files, {result['shards']:,} shards among them",
        f"left: versions {kept}",
    ]
    if result["spared"]:
        lines.append(f"{result['spared']:,} shards stay, because something that runs or a version uses them")
    return "\n".join(lines)
