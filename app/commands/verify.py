"""Read everything in a store again and check every hash and count."""

import argparse
from typing import Any

from app.store_option import store_of

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much to verify."""
    parser.add_argument("--version", metavar="N", type=int, help="only this version, its shards and its encoder")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Verify; no Prefect is needed."""
    from tasks.steps.verify_store import verify_store  # noqa: PLC0415

    return verify_store(store_of(args), version=args.version).as_json()


def show(result: dict[str, Any]) -> str:
    """A line a problem, and what was looked at."""
    lines = [f"{p['path']}: {p['sentence']} [{p['kind']}]" for p in result["problems"]]
    numbers = ", ".join(map(str, result["versions"])) or "none"
    looked = f"versions {numbers}; {result['shards']:,} shards, {result['unused_shards']:,} more that no version uses"
    found = f"{len(lines)} problem{'s' * (len(lines) != 1)}" if lines else "every hash and count holds"
    return "\n".join([*lines, f"{found}: {looked}"])
