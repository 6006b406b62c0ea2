"""Compare two versions."""

import argparse
from typing import Any

from app.store_option import store_of

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two versions."""
    parser.add_argument("before", metavar="A", type=int, help="a version's number")
    parser.add_argument("after", metavar="B", type=int, help="another version's number")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compare tables and manifests; no Prefect is needed."""
    from tasks.steps.diff_versions import diff_versions  # noqa: PLC0415

    return diff_versions(args.before, args.after, store=store_of(args))


def show(result: dict[str, Any]) -> str:
    """A line a kind."""
    lines = [f"from version {result['from']} to version {result['to']}"]
    for kind in ("photos", "faces"):
        lines.append(f"{kind}: " + ", ".join(f"{n:,} {what}" for what, n in result[kind].items()))
    for kind in ("settings", "metrics"):
        lines += [f"{name}: {before} -> {after}" for name, (before, after) in result[kind].items()]
    return "\n".join(lines)
