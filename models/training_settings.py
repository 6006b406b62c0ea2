"""How an encoder is trained, and the values found to work."""

import math
from dataclasses import dataclass, field
from typing import Literal

from models.augment import AugmentSettings
from models.objective import LossName, Objective
from models.pair_loss import PairLoss
from models.triplet import TripletLoss

__all__ = ["DEMO_SETTINGS", "GPU_SETTINGS", "PHOTO_SETTINGS", "TrainingSettings"]

_LEAST = {
    "epochs": 1,
    "batches_per_epoch": 1,
    "batch_people": 2,
    "batch_photos": 2,
    "batch_strangers": 0,
    "stranger_views": 1,
    "micro_batches": 1,
    "threads": 1,
}


@dataclass(frozen=True)
class TrainingSettings:
    """How an encoder is trained.

    Args:
        epochs: at most; each ends with a look at the validation people.
        batches_per_epoch: steps of an epoch.
        batch_people: people with several photos in a batch, at least 2.
        batch_photos: photos of each of them, at least 2.
        batch_strangers: people with a single photo in a batch.
        stranger_views: how often each stranger's photo stands in a batch: once, as somebody else only, or more often, each
            view augmented in its own way, so that people of a single photo give pairs of one person too.
        loss: "contrastive", "triplet" or "classification".
        learning_rate: the highest, reached after `warm_up` of the steps; from there it falls to zero as a half cosine.
        backbone_rate: share of the learning rate for the layers before the last linear one, above 0; below 1 where they
            bring pretrained weights.
        warm_up: share of the steps, in [0, 1).
        weight_decay: AdamW's, on the weights of layers; norms and biases go without.
        clip_norm: the gradient's length beyond which it is shortened, None for no limit.
        margin: of the contrastive loss, the distance beyond which two people cost nothing, in (0, 2).
        triplet_margin: of the triplet loss, in squared distance, in (0, 4).
        class_margin: of the classification, in cosine, in [0, 1).
        hardest_share: share of a batch's pairs of two people that counts, the costliest, in (0, 1].
        rebuild_weight: of the reconstruction loss, at least 0; at 0 the decoder is not run.
        patience: epochs without a better one after which training ends, None for never.
        precision: "float32", or "bfloat16" for mixed precision: layers in bfloat16, losses and weights in float32.
        micro_batches: parts that a batch is cut into from the start; each is doubled when memory does not suffice.
        seed: of the choice of faces and of their augmentation; the network's weights are the caller's.
        max_seconds: training ends with the step that passes it, the learning rate having fallen in time; None for no
            limit. With a limit the result depends on the machine.
        augment: how crops are changed, None for not at all.
        threads: torch's, on the processor. Two are a fifth faster than one for the narrow networks on an idle machine, and
            many times slower on a busy one; wide networks gain more.

    Raises:
        ValueError: a value out of range; the message names it.
    """

    epochs: int = 8
    batches_per_epoch: int = 40
    batch_people: int = 12
    batch_photos: int = 4
    batch_strangers: int = 0
    stranger_views: int = 1
    loss: LossName = "contrastive"
    learning_rate: float = 5e-3
    backbone_rate: float = 1.0
    warm_up: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float | None = None
    margin: float = 1.8
    triplet_margin: float = 0.2
    class_margin: float = 0.35
    hardest_share: float = 0.25
    rebuild_weight: float = 0.1
    patience: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batches: int = 1
    seed: int = 0
    max_seconds: float | None = None
    augment: AugmentSettings | None = field(default_factory=AugmentSettings)
    threads: int = 1

    def __post_init__(self) -> None:
        """Check every value; the losses check their margins."""
        PairLoss(margin=self.margin, rebuild_weight=self.rebuild_weight)
        TripletLoss(self.triplet_margin)
        Objective(
            "classification", margin=self.class_margin, hardest_share=self.hardest_share, dimension=1, people=2, seed=0
        )
        for name, value in _LEAST.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted at least {value}")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate: got {self.learning_rate}, wanted a value in (0, 1)")
        for name in ("hardest_share", "backbone_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted a share in (0, 1]")
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up: got {self.warm_up}, wanted a share in [0, 1)")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: got {self.weight_decay}, wanted a finite value of at least 0")
        for name in ("max_seconds", "clip_norm", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: got {value}, wanted a value above 0, or None for no limit")
        if self.precision not in {"float32", "bfloat16"}:
            raise ValueError(f"precision: got {self.precision!r}, wanted float32 or bfloat16")
        if self.loss not in {"contrastive", "triplet", "classification"}:
            raise ValueError(f"loss: got {self.loss!r}, wanted contrastive, triplet or classification")


DEMO_SETTINGS = TrainingSettings()
"""For some dozens of drawn people, six pictures each, from scratch, in a minute or two of one core.

What mattered most when they were chosen, by people not learnt from: a wide margin (with a narrow one embeddings stay in a
cone), counting only the hardest of two people's pairs, augmentation, and a high learning rate.
"""

PHOTO_SETTINGS = TrainingSettings(
    epochs=20, batches_per_epoch=50, batch_people=24, batch_photos=3, batch_strangers=12, learning_rate=1e-2
)
"""For hundreds to thousands of real people from scratch, many of them with a single photo, on a processor: with a quarter of the
channels and 80 pixels, 84,000 faces in some ten minutes of one core. Chosen by LFW's View 1, by people not learnt from.
"""

GPU_SETTINGS = TrainingSettings(
    epochs=12,
    batches_per_epoch=200,
    batch_people=64,
    batch_photos=3,
    batch_strangers=64,
    learning_rate=3e-3,
    clip_norm=5.0,
    patience=5,
    precision="bfloat16",
)
"""For the whole network at 160 pixels on one GPU: 600,000 faces shown, three minutes of an H200. By LFW's View 1, whose 3,000 photos are
learnt by heart in a few epochs, whatever the loss (benchmarks/train_lfw.py); more photos may want more epochs."""
