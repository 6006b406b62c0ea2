"""A training's epochs as a table and as curves."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from models.training import EpochRecord

__all__ = ["curves_csv", "curves_png"]


def curves_csv(epochs: Sequence[EpochRecord]) -> bytes:
    """A line an epoch, with a header: every figure of `EpochRecord`."""
    sink = io.StringIO()
    rows = [_flat(record) for record in epochs]
    writer = csv.DictWriter(sink, list(rows[0]) if rows else ["epoch"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def curves_png(epochs: Sequence[EpochRecord], *, best_epoch: int, title: str) -> bytes:
    """Losses above, precision@1 of the validation people and the learning rate below, over epochs, as PNG.

    Args:
        epochs: of one training.
        best_epoch: the one kept, from 1; it is marked.
        title: above the curves.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  half a second

    number = [record.epoch for record in epochs]
    figure = Figure(figsize=(7, 6.5), dpi=110, layout="constrained")
    losses, skill = figure.subplots(2, 1, sharex=True)
    figure.suptitle(title, fontsize=11, parse_math=False)
    losses.plot(number, [r.loss for r in epochs], "o-", ms=3, label="training loss")
    losses.plot(number, [r.validation_loss for r in epochs], "o-", ms=3, label="validation people, contrastive")
    if any(r.reconstruction_loss for r in epochs):
        losses.plot(number, [r.reconstruction_loss for r in epochs], "o-", ms=3, label="reconstruction, both crops")
    losses.set_ylabel("loss")
    skill.plot(number, [r.validation.precision_at_1 for r in epochs], "o-", ms=3, label="precision@1")
    skill.plot(number, [r.validation.verification_accuracy for r in epochs], "o-", ms=3, label="pairs told apart")
    skill.set(xlabel="epoch", ylabel="validation people, share right", ylim=(0, 1.02))
    skill.xaxis.get_major_locator().set_params(integer=True)
    for axes in (losses, skill):
        axes.axvline(best_epoch, color="0.6", lw=1, ls="--", zorder=0, label=f"kept: epoch {best_epoch}")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, framealpha=0.9)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def _flat(record: EpochRecord) -> dict[str, Any]:
    row = asdict(record)
    validation = row.pop("validation")
    return row | {f"validation_{name}": value for name, value in validation.items()}
