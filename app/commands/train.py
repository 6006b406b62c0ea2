"""Train an encoder on photos that lie in a folder a person."""

import argparse
import os
from dataclasses import replace
from typing import Any

from app.early import refuse_early
from app.store_option import store_of
from app.terminal import showing_progress

__all__ = ["add_arguments", "run", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE and how to train."""
    parser.add_argument("source", metavar="SOURCE", help="a folder with a folder a person")
    parser.add_argument(
        "--from",
        dest="start",
        default="scratch",
        help="scratch (the default), or the id of an Inception-ResNet V1 in the store",
    )
    parser.add_argument("--epochs", type=int, help="at most so many")
    parser.add_argument("--max-seconds", type=float, help="stop training after so many seconds")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the split, the first weights and the choice of pairs (default: 0)"
    )
    parser.add_argument(
        "--input-px", type=int, default=80, help="side of the encoder's input, from scratch (default: 80)"
    )
    parser.add_argument(
        "--width",
        type=float,
        default=0.5,
        help="share of the published network's channels, from scratch (default: 0.5)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        help="torch's threads on the processor (default: the machine's cores)",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to train (default: cpu)")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="child processes that align (default: the machine's cores)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the flow `train-encoder`."""
    from flows.train_encoder import train_encoder  # noqa: PLC0415
    from models.training import PHOTO_SETTINGS  # noqa: PLC0415
    from tasks import policies  # noqa: PLC0415
    from tasks.steps.train_encoder import NetworkSettings  # noqa: PLC0415

    store = store_of(args)
    refuse_early(args, store=store)
    settings = replace(PHOTO_SETTINGS, seed=args.seed, max_seconds=args.max_seconds, threads=args.threads)
    if args.epochs is not None:
        settings = replace(settings, epochs=args.epochs)
    with showing_progress():
        trained = train_encoder.with_options(task_runner=policies.threads(args.workers))(
            source=args.source,
            store=store,
            start=args.start,
            network=NetworkSettings(width=args.width, input_px=args.input_px, seed=args.seed),
            settings=settings,
            workers=args.workers,
            device=args.device,
        )
    return trained.as_json()


def show(result: dict[str, Any]) -> str:
    """The encoder and what it learned."""
    before, after = result["metrics_before"], result["metrics_after"]
    lines = [f"encoder {result['encoder']}: epoch {result['best_epoch']} of {result['epochs']}"]
    lines += [
        f"{name:<22} {before[name]:.3f} -> {after[name]:.3f} on {result['held_out_people']} held-out people"
        for name in after
    ]
    return "\n".join([*lines, result["why"]])
