"""Measure how well an encoder tells people apart, on pairs of photos."""

import argparse
import os
from pathlib import Path
from typing import Any

from app.store_option import store_of
from app.terminal import say, showing_progress

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which pairs, and what to measure on them."""
    parser.add_argument(
        "--images", metavar="DIR", required=True, help="the folder that the names of the pairs file are relative to"
    )
    parser.add_argument(
        "--pairs",
        metavar="FILE",
        required=True,
        help="LFW's View 1 or View 2, or a CSV with the columns first, second, same and fold (optional)",
    )
    parser.add_argument(
        "--encoder", help="a published encoder's name, an id in the store, or an .onnx file with its card beside it"
    )
    parser.add_argument(
        "--exclude-people", metavar="FILE", help="one name a line: pairs that show one of them are left out"
    )
    parser.add_argument("--out", metavar="FILE.html", type=Path, help="write a page with the figures and curves")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="child processes (default: the machine's cores)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where nets run (default: cpu)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, and write the page where one is wanted; no Prefect is needed."""
    from store.errors import LookalikeError  # noqa: PLC0415
    from tasks.steps.contract import Contract  # noqa: PLC0415
    from tasks.steps.evaluate_encoder import evaluate_encoder  # noqa: PLC0415
    from tasks.steps.evaluation_page import write_evaluation_page  # noqa: PLC0415

    if args.workers < 1:
        raise LookalikeError(f"--workers is {args.workers}: wanted at least 1")
    store = store_of(args)
    with showing_progress():
        evaluation, seconds = evaluate_encoder(
            args.pairs,
            images=args.images,
            store=store,
            encoder=args.encoder,
            exclude_people=args.exclude_people,
            workers=args.workers,
            device=args.device,
        )
    page = None
    if args.out is not None:
        write_evaluation_page(evaluation, store=store, contract=Contract(), html=args.out)
        page = str(args.out)
        say(f"wrote {page}")
    return evaluation.as_json() | {"seconds": seconds, "page": page}


def show(result: dict[str, Any]) -> str:
    """Each figure with what it says."""
    lines = [
        f"encoder {result['encoder']['name']} on {result['pairs_file']['uri']} ({result['pairs_file']['format']})",
        *_pairs_lines(result),
        "",
        "verification: are two photos of one person?",
        *_verification_lines(result),
        "",
        *_retrieval_lines(result),
        "",
        "seconds: " + ", ".join(f"{stage} {s:.1f}" for stage, s in result["seconds"].items()),
    ]
    return "\n".join(lines)


def _pairs_lines(result: dict[str, Any]) -> list[str]:
    people = "" if result["people"] is None else f", {result['people']:,} people"
    lines = [f"{result['pairs']:,} pairs: {result['same']:,} of one person, {result['different']:,} of two{people}"]
    if result["excluded"]:
        left = result["excluded"]
        lines.append(
            f"  left out: pairs that show any of {left['names']:,} people in {left['file']}; "
            f"{left['pairs_left']:,} of {left['pairs_before']:,} pairs remain"
        )
    lines.append(
        f"coverage {100 * result['coverage']:.2f} %: {result['covered']:,} pairs have a face in both photos; {result['face']}"
    )
    lines += [
        f"  {_count(row['photos'], 'photo')} in {_count(row['pairs'], 'pair')} {row['status']}: {row['reason']}"
        for row in result["uncovered"]
    ]
    if result["uncovered"]:
        lines.append("  pairs without two faces count as two people, at a cosine of -1")
    return lines


def _verification_lines(result: dict[str, Any]) -> list[str]:
    folds = result["folds"]
    how = "those of the file" if folds["from"] == "file" else "cut by a fixed seed"
    lines = [
        f"  accuracy          {result['accuracy_mean']:.4f} ± {result['accuracy_std']:.4f}"
        f"   mean and deviation over {len(folds['pairs'])} folds ({how}), each tested with the others' threshold"
    ]
    if result["coverage"] < 1 and result["accuracy_covered"] is not None:
        lines.append(f"  accuracy, covered {result['accuracy_covered']:.4f}            pairs with two faces only")
    lines += [
        f"  AUC               {result['auc']:.4f}            chance that a pair of one person scores higher than one of two",
        f"  equal error rate  {result['eer']:.4f}            where as many of either kind are told wrongly",
    ]
    for far, row in result["tar_at_far"].items():
        name = f"  TAR at FAR {far:<7}"
        if row["tar"] is None:
            lines.append(f"{name}not measured      {row['reason']}")
        else:
            lines.append(
                f"{name}{row['tar']:.4f}            95 % interval {row['low']:.4f} to {row['high']:.4f}, "
                f"{_count(row['false_accepts'], 'pair')} of two people accepted"
            )
    return lines


def _retrieval_lines(result: dict[str, Any]) -> list[str]:
    found = result["retrieval"]
    if found is None:
        return [f"retrieval: not measured: {result['retrieval_reason']}"]
    lines = [f"retrieval: {found['queries']:,} photos of people with several, asked for among {found['faces']:,}"]
    for k, value in found["precision_at"].items():
        lines.append(
            f"  precision@{k:<8}{value:.4f}            of the {k} nearest; {found['possible_at'][k]:.4f} is the best possible"
        )
    lines.append(f"  mAP               {found['map']:.4f}            mean average precision, over the whole ranking")
    lines += [f"  rank-1 of {row['gallery']:<8,}{row['accuracy']:.4f}" for row in found["rank_1"]]
    lines[-len(found["rank_1"])] += "            first in a gallery of so many faces, the others strangers'"
    return lines


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
