"""Say what a build would do."""

import argparse
from typing import Any

from app.commands.build import add_how_to_compare
from app.store_option import store_of

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE, and what of it is looked at."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder, a quoted glob, an s3:// prefix or other fsspec url, or a list (.txt, .csv, .parquet) of paths and urls",
    )
    add_how_to_compare(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compare the source with the published version; no Prefect is needed."""
    from tasks.steps.compare_listing import look_at_of  # noqa: PLC0415
    from tasks.steps.contract import Contract  # noqa: PLC0415
    from tasks.steps.plan_build import compare_source  # noqa: PLC0415

    look_at = look_at_of(retry=args.retry, full=args.full)
    return compare_source(args.source, store=store_of(args), contract=Contract(), look_at=look_at).as_json()


def show(result: dict[str, Any]) -> str:
    """The counts, one a line."""
    return "\n".join(f"{name:<10}{n:>10,}" for name, n in result.items())
