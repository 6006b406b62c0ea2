"""Ask who is in a photo."""

import argparse
from pathlib import Path
from typing import Any

from app.store_option import store_of
from app.terminal import say

__all__ = ["add_arguments", "run", "show"]

_LEAD = "The most similar faces known. The number is a cosine: 1 for the same picture; how alike two faces look to the encoder, not a probability."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """IMAGE and how to ask."""
    parser.add_argument("image", metavar="IMAGE", help="a path, a url, or s3://bucket/key")
    parser.add_argument("-k", type=int, default=10, help="matches a face (default: 10)")
    parser.add_argument("--version", type=int, help="the version to ask (default: the current one)")
    parser.add_argument("--encoder", help="refuse a version that was not built with this encoder")
    parser.add_argument("--out", metavar="FILE.html", type=Path, help="write a contact sheet")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Answer, and write the contact sheet where one is wanted; no Prefect is needed."""
    from tasks.steps.contact_sheet import write_contact_sheet  # noqa: PLC0415
    from tasks.steps.query_photo import query_photo  # noqa: PLC0415

    store = store_of(args)
    answer = query_photo(args.image, store=store, k=args.k, version=args.version, encoder=args.encoder)
    for warning in answer.warnings:
        say(f"lookalike: warning: {warning}")
    if args.out is not None:
        write_contact_sheet([answer], store=store, html=args.out, lead=_LEAD)
        say(f"wrote {args.out}")
    return answer.as_json()


def show(result: dict[str, Any]) -> str:
    """A block a face, a line a match."""
    lines = [f"version {result['version']}, {result['image']}"]
    for n, face in enumerate(result["faces"], start=1):
        x1, y1, x2, y2 = (round(side) for side in face["box"])
        lines.append(f"face {n} at {x1},{y1}-{x2},{y2}, score {face['score']:.3f}")
        for match in face["matches"]:
            lines.append(f"  {match['cosine']:6.3f}  {match['label'] or '':<24} {match['uri']}")
    return "\n".join(lines)
