"""List the published versions."""

import argparse
from typing import Any

from app.store_option import store_of

__all__ = ["add_arguments", "run", "show"]

_KEYS = ("parent", "created_at", "photos", "faces", "encoder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No more than every command has."""
    del parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Read every manifest; no Prefect is needed."""
    from store.errors import LookalikeError  # noqa: PLC0415
    from store.layout import open_store  # noqa: PLC0415
    from store.versions import current_number, published_numbers, read_version  # noqa: PLC0415

    storage = open_store(store_of(args))
    try:
        current = current_number(storage)
    except LookalikeError:  # `verify` says what is wrong with it
        current = None
    rows = []
    for number in published_numbers(storage):
        try:
            manifest = read_version(storage, number).manifest
        except LookalikeError as error:
            rows.append(dict.fromkeys(_KEYS) | {"version": number, "current": number == current, "problem": str(error)})
            continue
        rows.append(
            {
                "version": number,
                "parent": manifest.parent,
                "created_at": manifest.created_at,
                "photos": manifest.photos,
                "faces": manifest.faces,
                "encoder": manifest.encoder.id,
                "current": number == current,
                "problem": None,
            }
        )
    return {"versions": rows}


def show(result: dict[str, Any]) -> str:
    """A line a version, the current one marked."""
    lines = [f"{'':2}{'version':>7} {'photos':>10} {'faces':>10}  {'created':<26} encoder"]
    for row in result["versions"]:
        mark = "* " if row["current"] else "  "
        if row["problem"]:
            lines.append(f"{mark}{row['version']:>7} damaged: {row['problem']}")
            continue
        lines.append(
            f"{mark}{row['version']:>7} {row['photos']:>10,} {row['faces']:>10,}  {row['created_at']:<26} {row['encoder']}"
        )
    return "\n".join(lines) if result["versions"] else "no version yet: run `lookalike build SOURCE`"
