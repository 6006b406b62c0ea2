"""Training an encoder from crops and the names of the people on them.

N faces, H rows, W columns, D dimensions of an embedding.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.augment import augment_crops
from models.batch_norm import recalibrate_batch_norm
from models.decoder import Decoder
from models.pair_loss import PairLoss
from models.pairs import PeopleSplit, sample_batch, sample_pairs
from models.people import PeopleCrops, PeopleMetrics, measure_people, select_people, training_input
from models.preprocess import normalise_pixels
from models.torch_threads import torch_threads
from models.training_settings import DEMO_SETTINGS, PHOTO_SETTINGS, TrainingSettings

__all__ = [
    "DEMO_SETTINGS",
    "PHOTO_SETTINGS",
    "EpochRecord",
    "PeopleMetrics",
    "TrainingResult",
    "TrainingSettings",
    "train_encoder",
    "training_input",
]

RECALIBRATION_FACES = 1024
RECALIBRATION_BATCH = 128


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean losses of its steps (contrastive, and reconstruction of both crops of a pair), and the state after it.

    Validation figures are of the validation people; `seconds` is from the start of the training.
    """

    epoch: int
    steps: int
    contrastive_loss: float
    reconstruction_loss: float
    validation_loss: float
    validation: PeopleMetrics
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """The best epoch's weights, on the processor and contiguous, and how they came about.

    Both metrics are of the held-out people, `before` with the weights that training started from.
    """

    state_dict: dict[str, Tensor]
    best_epoch: int
    epochs: tuple[EpochRecord, ...]
    metrics_before: PeopleMetrics
    metrics_after: PeopleMetrics
    stopped_by: Literal["epochs", "max_seconds"]


def train_encoder(
    crops_NHWC: NDArray[np.uint8],
    labels: Sequence[str],
    *,
    network: nn.Module,
    decoder: Decoder,
    settings: TrainingSettings,
    split: PeopleSplit,
    device: str = "cpu",
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainingResult:
    """Train `network` to tell people apart, by balanced pairs and by rebuilding the crops.

    It learns from the train people, keeps the epoch that does best on the validation people (precision@1, then lower loss,
    then the earlier) and reports on the held-out people, by whom nothing is chosen. On the processor, without a time limit,
    equal arguments give equal results.

    Args:
        crops_NHWC: uint8, (N, H, W, 3), RGB, cut and resized as the encoder's geometry says; its card's input must be
            `training_input(H, W)`.
        labels: the person of each crop; crops of people outside the split are left out.
        network: is trained in place, and left with the best epoch's weights in evaluation mode.
        decoder: is trained in place too, and of no use afterwards.
        settings: how.
        split: who serves for what.
        device: "cpu" or "cuda".
        on_epoch: is told of each epoch as it ends.

    Raises:
        ValueError: crops that do not agree with labels or decoder, or a group without two people or without a person with
            two photos; the message says which.
    """
    _check_crops(crops_NHWC, labels, decoder)
    train, validation, held_out = (
        _group(crops_NHWC, labels, people, name=name)
        for name, people in (("train", split.train), ("validation", split.validation), ("held-out", split.held_out))
    )
    trainer = _Trainer(train, network=network, decoder=decoder, settings=settings, device=device)
    measure = partial(measure_people, network, margin=settings.margin, device=device)
    with torch_threads(settings.threads):
        before, _ = measure(held_out)
        best, state_dict = 0, _copy_of(network)
        epochs: list[EpochRecord] = []
        while len(epochs) < settings.epochs and not (epochs and trainer.out_of_time):
            losses = trainer.run_epoch()
            metrics, loss = measure(validation)
            epochs.append(EpochRecord(len(epochs) + 1, *losses, loss, metrics, trainer.learning_rate, trainer.seconds))
            if len(epochs) == 1 or _merit(epochs[-1]) > _merit(epochs[best]):
                best, state_dict = len(epochs) - 1, _copy_of(network)
            if on_epoch is not None:
                on_epoch(epochs[-1])
        network.load_state_dict(state_dict)
        after, _ = measure(held_out)
    stopped_by: Literal["epochs", "max_seconds"] = "epochs" if trainer.finished else "max_seconds"
    return TrainingResult(state_dict, best + 1, tuple(epochs), before, after, stopped_by)


class _Trainer:
    """The state that steps change: weights, optimiser, random numbers, the clock."""

    def __init__(
        self,
        people: PeopleCrops,
        *,
        network: nn.Module,
        decoder: Decoder,
        settings: TrainingSettings,
        device: str,
    ) -> None:
        self._people, self._settings, self._device = people, settings, device
        self._network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._decoder = decoder.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._spec = training_input(decoder.height, decoder.width)
        self._loss = PairLoss(margin=settings.margin, rebuild_weight=settings.rebuild_weight)
        self._optimiser = torch.optim.AdamW(
            _parameter_groups([network, decoder], settings.weight_decay), lr=settings.learning_rate, fused=True
        )
        self._choice = np.random.default_rng(settings.seed)
        self._change = torch.Generator().manual_seed(settings.seed)
        self._steps = 0
        self._start = time.monotonic()
        self.learning_rate = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def finished(self) -> bool:
        return self._steps == self._settings.epochs * self._settings.batches_per_epoch

    @property
    def out_of_time(self) -> bool:
        return self._settings.max_seconds is not None and self.seconds >= self._settings.max_seconds

    def run_epoch(self) -> tuple[int, float, float]:
        """An epoch's steps and mean contrastive and reconstruction losses; leaves the network ready to embed."""
        self._network.train()
        self._decoder.train()
        losses: list[tuple[float, float]] = []
        while len(losses) < self._settings.batches_per_epoch and not (losses and self.out_of_time):
            losses.append(self._step())
        recalibrate_batch_norm(self._network, self._recalibration_batches())
        contrastive, reconstruction = np.mean(losses, axis=0)
        return len(losses), float(contrastive), float(reconstruction)

    def _step(self) -> tuple[float, float]:
        settings = self._settings
        rows = sample_batch(
            self._people.labels,
            people=settings.batch_people,
            photos=settings.batch_photos,
            strangers=settings.batch_strangers,
            generator=self._choice,
        )
        crops_NCHW = self._people.pixels(rows, self._device) / 255
        if settings.augment is not None:
            crops_NCHW = augment_crops(crops_NCHW, settings.augment, generator=self._change)
        labels_N = torch.from_numpy(self._people.labels[rows]).to(self._device)
        emb_ND = self._network(normalise_pixels(crops_NCHW * 255, self._spec))
        rebuilt_NCHW = self._decoder(emb_ND) if settings.rebuild_weight else crops_NCHW
        terms = self._loss.all_pairs(
            emb_ND, labels_N, rebuilt_NCHW=rebuilt_NCHW, crops_NCHW=crops_NCHW, hardest_share=settings.hardest_share
        )
        self._descend(terms.total)
        return terms.contrastive.item(), terms.reconstruction.item()

    def _descend(self, loss: Tensor) -> None:
        self.learning_rate = self._settings.learning_rate * _rise_and_fall(self._progress(), self._settings.warm_up)
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._steps += 1

    def _progress(self) -> float:
        """How much of the training is over, in [0, 1], by steps or by time, whichever is more."""
        settings = self._settings
        by_time = 0.0 if settings.max_seconds is None else self.seconds / settings.max_seconds
        return min(1.0, max(by_time, (self._steps + 0.5) / (settings.epochs * settings.batches_per_epoch)))

    def _recalibration_batches(self) -> Iterator[Tensor]:
        rows = np.random.default_rng(self._settings.seed).permutation(len(self._people.labels))[:RECALIBRATION_FACES]
        for batch in np.array_split(rows, math.ceil(len(rows) / RECALIBRATION_BATCH)):
            yield normalise_pixels(self._people.pixels(batch, self._device), self._spec)


def _parameter_groups(modules: Sequence[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    """Weights of layers decay, batch-norms and biases do not."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _rise_and_fall(progress: float, warm_up: float) -> float:
    """From 0 up to 1 in a line, then down to 0 as a half cosine; `progress` in [0, 1]."""
    if progress < warm_up:
        return progress / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warm_up) / (1 - warm_up))


def _merit(record: EpochRecord) -> tuple[float, float]:
    return record.validation.precision_at_1, -record.validation_loss


def _copy_of(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }


def _group(crops_NHWC: NDArray[np.uint8], labels: Sequence[str], people: Sequence[str], *, name: str) -> PeopleCrops:
    group = select_people(crops_NHWC, labels, people)
    try:
        sample_pairs(group.labels, pairs=1, generator=np.random.default_rng(0))
    except ValueError as error:
        raise ValueError(f"{name} people: {error}") from error
    return group


def _check_crops(crops_NHWC: NDArray[np.uint8], labels: Sequence[str], decoder: Decoder) -> None:
    wanted = (len(labels), decoder.height, decoder.width, 3)
    if crops_NHWC.dtype != np.uint8 or crops_NHWC.shape != wanted:
        raise ValueError(
            f"crops: got {crops_NHWC.dtype} {crops_NHWC.shape}, wanted uint8 {wanted}, one for each label and of the "
            "decoder's size"
        )
