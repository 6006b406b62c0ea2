"""Train an encoder on photos that lie in a folder a person."""

import argparse
import os
from dataclasses import replace
from typing import Any

from app.early import refuse_early
from app.store_option import store_of
from app.terminal import showing_progress

__all__ = ["add_arguments", "run", "show"]

_SETTINGS = (
    "loss",
    "margin",
    "rebuild_weight",
    "epochs",
    "patience",
    "max_seconds",
    "learning_rate",
    "backbone_rate",
    "clip_norm",
    "micro_batches",
    "precision",
    "seed",
    "threads",
)
"""Arguments that are fields of TrainingSettings."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE and how to train."""
    parser.add_argument("source", metavar="SOURCE", help="a folder with a folder a person")
    parser.add_argument(
        "--from",
        dest="start",
        default="scratch",
        help="scratch (the default), or an Inception-ResNet V1 or ResNet-50: its id in the store, a published name or a file",
    )
    _add_network(parser)
    _add_training(parser)
    parser.add_argument(
        "--promotion-margin",
        type=float,
        default=0.01,
        help="in precision@1, by which it must be better to be used from now on (default: 0.01)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="child processes that align (default: the machine's cores)",
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group("the network, from scratch")
    network.add_argument("--network", choices=["inception-resnet-v1", "resnet50"], default="inception-resnet-v1")
    network.add_argument(
        "--width", type=float, help="share of Inception-ResNet V1's channels (default: 0.25, on a GPU 1)"
    )
    network.add_argument("--dimension", type=int, help="of the embedding (default: 128, on a GPU 512)")
    network.add_argument("--input-px", type=int, help="side of the encoder's input (default: 80, on a GPU 160)")


def _add_training(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("the training")
    training.add_argument("--loss", choices=["contrastive", "triplet", "classification"], default="contrastive")
    training.add_argument("--margin", type=float, help="of the contrastive loss, in (0, 2)")
    training.add_argument("--rebuild-weight", type=float, help="of the reconstruction loss; 0 goes without a decoder")
    training.add_argument("--epochs", type=int, help="at most so many")
    training.add_argument("--patience", type=int, help="stop after so many epochs without a better one")
    training.add_argument("--max-seconds", type=float, help="stop after so many seconds")
    training.add_argument("--learning-rate", type=float, help="the highest")
    training.add_argument(
        "--backbone-rate", type=float, help="share of it for all but the last layers, for pretrained ones (0.1, say)"
    )
    training.add_argument("--clip-norm", type=float, help="shorten gradients longer than this")
    training.add_argument("--micro-batches", type=int, help="parts that a batch is cut into (default: 1)")
    training.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        help="of the layers (default: float32, on a GPU bfloat16)",
    )
    training.add_argument(
        "--seed", type=int, default=0, help="of the split, the first weights and the choice of faces (default: 0)"
    )
    training.add_argument(
        "--threads",
        type=int,
        default=max(1, (os.cpu_count() or 1) // 2),
        help="torch's threads on the processor (default: half of the machine's cores: on a busy machine more are slower)",
    )
    training.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to train (default: cpu)")
    training.add_argument("--processes", type=int, default=1, help="that train together, one a GPU (default: 1)")
    training.add_argument("--machines", type=int, default=1, help="with so many processes each (default: 1)")
    training.add_argument("--meet-at", metavar="HOST:PORT", help="of this machine, for more than one")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the flow `train-encoder`."""
    from models.training import GPU_SETTINGS, PHOTO_SETTINGS  # noqa: PLC0415
    from store.errors import LookalikeError  # noqa: PLC0415
    from tasks.steps.train_encoder import GPU_NETWORK, NetworkSettings, Processes  # noqa: PLC0415

    store, on_gpu = store_of(args), args.device == "cuda"
    changes: dict[str, Any] = {name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None}
    try:
        settings = replace(GPU_SETTINGS if on_gpu else PHOTO_SETTINGS, **changes)
        processes = Processes(per_machine=args.processes, machines=args.machines, meet_at=args.meet_at)
    except ValueError as error:
        raise LookalikeError(f"this training cannot be: {error}") from error
    refuse_early(args, store=store)
    from flows.train_encoder import train_encoder  # noqa: PLC0415
    from tasks import policies  # noqa: PLC0415

    asked = {"width": args.width, "dimension": args.dimension, "input_px": args.input_px, "architecture": args.network}
    network = replace(
        GPU_NETWORK if on_gpu else NetworkSettings(),
        seed=args.seed,
        **{name: value for name, value in asked.items() if value is not None},
    )
    with showing_progress():
        trained = train_encoder.with_options(task_runner=policies.threads(args.workers), timeout_seconds=0)(
            source=args.source,
            store=store,
            start=args.start,
            network=network,
            settings=settings,
            workers=args.workers,
            device=args.device,
            processes=processes,
            promotion_margin=args.promotion_margin,
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
    lines += [f"  {row['precision_at_1']:.3f}  {row['role']}" for row in result["promotion"]["table"]]
    return "\n".join([*lines, result["why"], f"curves: {result['curves']['png']}"])
