"""Index a source's photos and publish a version."""

import argparse
import os
from typing import Any

from app.early import refuse_early
from app.store_option import store_of
from app.terminal import showing_progress

__all__ = ["add_arguments", "add_how_to_compare", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE and how to index it."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder, a quoted glob, an s3:// prefix or other fsspec url, or a list (.txt, .csv, .parquet) of paths and urls",
    )
    parser.add_argument(
        "--encoder",
        help="a published encoder's name (downloaded once), an id in the store, or an .onnx file with its card beside it",
    )
    parser.add_argument("--labels", choices=["folder"], help="take the name of a photo's folder as the person's name")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="child processes (default: the machine's cores)"
    )
    parser.add_argument(
        "--cluster", help="dask://HOST:PORT of a scheduler whose workers compute instead, and see photos and store"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: on GPUs, a process each")
    parser.add_argument("--shard-photos", type=int, default=256, help="photos a shard, about (default: 256)")
    _add_budget(parser)
    add_how_to_compare(parser)


def _add_budget(parser: argparse.ArgumentParser) -> None:
    """What the index may take; what is not given stays as the version before had it."""
    parser.add_argument(
        "--memory", metavar="SIZE", help="that the index may hold while it answers, such as 512M or 8G (at first: 4G)"
    )
    parser.add_argument(
        "--latency", type=float, metavar="MS", help="milliseconds that a query may take on one core (at first: 20)"
    )
    parser.add_argument(
        "--recall", type=float, help="recall@10 that an approximate index is tuned for (at first, and at least: 0.95)"
    )


def add_how_to_compare(parser: argparse.ArgumentParser) -> None:
    """What a build, and a plan of one, looks at."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--retry", choices=["failed"], help="only try again the photos that could not be read before")
    what.add_argument("--full", action="store_true", help="hash every photo, whatever its size and time say")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the flow `build-index`."""
    from flows.build_index import build_index  # noqa: PLC0415
    from tasks import policies  # noqa: PLC0415

    store = store_of(args)
    with showing_progress():
        refuse_early(args, store=store)  # which brings the encoder, from the web if need be
        return build_index.with_options(task_runner=policies.threads(args.workers), timeout_seconds=0)(
            source=args.source,
            store=store,
            encoder=args.encoder,
            labels=args.labels,
            workers=args.workers,
            shard_photos=args.shard_photos,
            retry=args.retry,
            full=args.full,
            cluster=args.cluster,
            device=args.device,
            memory=args.memory,
            latency_ms=args.latency,
            recall=args.recall,
        )


def show(result: dict[str, Any]) -> str:
    """What was published, and what became of the photos."""
    plan, seconds = result["plan"], result["seconds"]
    lines = []
    if result["published"]:
        lines.append(f"published version {result['version']}: {result['faces']:,} faces in {result['seen']:,} photos")
    else:
        lines.append(
            f"nothing new: version {result['version']} stays, {result['faces']:,} faces in {result['seen']:,} photos"
        )
    lines.append(
        "photos: "
        + ", ".join(f"{n:,} {status}" for status, n in result["photos"].items())
        + f" = {result['seen']:,} seen"
    )
    lines += [f"  {kind['photos']:>8,} {kind['status']}: {kind['reason']}" for kind in result["rejects"]]
    if result["rejects"]:
        lines.append(
            f"each photo's status and reason: {result['look_in']['photos']}; to read: {result['look_in']['report']}"
        )
    lines.append(
        "source: " + ", ".join(f"{n:,} {kind}" for kind, n in plan.items() if n or kind in {"added", "removed"})
    )
    lines += _embedded(result)
    lines.append("shards: " + ", ".join(f"{n:,} {kind}" for kind, n in result["shards"].items()))
    if result["index"]:
        index = result["index"]
        recall = "not measured" if index["recall_at_10"] is None else f"{index['recall_at_10']:.3f}"
        lines += [f"index: {index['key']}, recall@10 {recall}, {index['bytes']:,} bytes", f"  {index['why']}"]
    lines.append("seconds: " + ", ".join(f"{stage} {s:.1f}" for stage, s in seconds.items()))
    return "\n".join(lines)


def _embedded(result: dict[str, Any]) -> list[str]:
    """What was embedded from stored crops, where any was."""
    embedded = result["embedded"]
    if not embedded["from_stored_crops"]:
        return []
    verb = "re-embedded" if embedded["instead_of"] else "embedded"
    line = f"{verb} {embedded['from_stored_crops']:,} faces from stored crops"
    if result["shards"]["computed"]:
        return [f"{line}; faces were searched in the photos of new shards only"]
    return [f"{line}: no photo was decoded, no face was searched"]
