"""Training an encoder from crops and the names of the people on them.

N faces, H rows, W columns, D dimensions of an embedding.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from models.card import InputSpec
from models.course import Course, EpochRecord, Keeper, RunOptions, StepsDone, StoppedBy
from models.decoder import Decoder
from models.pairs import PeopleSplit, sample_pairs
from models.people import PeopleCrops, PeopleMetrics, measure_people, select_people, training_input
from models.torch_threads import torch_threads
from models.trainer import Trainer, TrainingDivergedError
from models.training_settings import DEMO_SETTINGS, GPU_SETTINGS, PHOTO_SETTINGS, TrainingSettings

__all__ = [
    "DEMO_SETTINGS",
    "GPU_SETTINGS",
    "PHOTO_SETTINGS",
    "EpochRecord",
    "PeopleMetrics",
    "RunOptions",
    "StepsDone",
    "TrainingDivergedError",
    "TrainingResult",
    "TrainingSettings",
    "train_encoder",
    "training_input",
]


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
    stopped_by: StoppedBy


ALONE_ON_THE_PROCESSOR = RunOptions()


def train_encoder(
    crops_NHWC: NDArray[np.uint8],
    labels: Sequence[str],
    *,
    network: nn.Module,
    decoder: Decoder,
    settings: TrainingSettings,
    split: PeopleSplit,
    spec: InputSpec | None = None,
    run: RunOptions = ALONE_ON_THE_PROCESSOR,
) -> TrainingResult:
    """Train `network` to tell people apart, by one of the losses and by rebuilding the crops.

    It learns from the train people, keeps the epoch that does best on the validation people (precision@1, then lower loss,
    then the earlier) and reports on the held-out people, by whom nothing is chosen. On the processor, without a time limit,
    equal arguments give equal results, bit for bit, also when the training was killed and went on from its checkpoint.

    Args:
        crops_NHWC: uint8, (N, H, W, 3), RGB, cut and resized as the encoder's geometry says.
        labels: the person of each crop; crops of people outside the split are left out.
        network: is trained in place, and left with the best epoch's weights in evaluation mode.
        decoder: is trained in place too, and of no use afterwards.
        settings: how.
        split: who serves for what.
        spec: the network's input, as its card must say; None is `training_input(H, W)`.
        run: where, and who is told.

    Raises:
        ValueError: crops that do not agree with labels or decoder, a group without two people or without a person with
            two photos, or a checkpoint of another training; the message says which.
        TrainingDivergedError: a loss or gradient is no number; nothing is kept.
    """
    _check_crops(crops_NHWC, labels, decoder)
    train, validation, held_out = (
        _group(crops_NHWC, labels, people, name=name)
        for name, people in (("train", split.train), ("validation", split.validation), ("held-out", split.held_out))
    )
    spec = spec or training_input(*crops_NHWC.shape[1:3])
    trainer = Trainer(
        train, network=network, decoder=decoder, settings=settings, spec=spec, device=run.device, team=run.team
    )
    measure = partial(measure_people, network, margin=settings.margin, device=run.device, spec=spec)
    with torch_threads(settings.threads):
        course = Course(trainer, network, settings)
        keeper = Keeper(course, _identity(train, validation, settings), run)
        if not keeper.resume():
            keeper.before, _ = measure(held_out)
        while not (stopped_by := course.over()):
            losses = trainer.run_epoch(partial(_after_step, course, keeper, run))
            record = course.add(losses, *measure(validation))
            keeper.keep()
            if run.on_epoch is not None and run.team.leads:
                run.on_epoch(record)
        network.load_state_dict(course.best_weights)
        after, _ = measure(held_out)
    before = cast(PeopleMetrics, keeper.before)
    return TrainingResult(course.best_weights, course.best + 1, tuple(course.epochs), before, after, stopped_by)


def _after_step(course: Course, keeper: Keeper, run: RunOptions) -> None:
    keeper.keep_in_time()
    if run.on_step is not None:
        run.on_step(course.steps_done())


def _identity(train: PeopleCrops, validation: PeopleCrops, settings: TrainingSettings) -> str:
    """A hash of all that a training hangs on, but for the network's first weights, which its checkpoint replaces."""
    told: dict[str, Any] = {name: value for name, value in asdict(settings).items() if name not in {"threads"}}
    digest = hashlib.sha256(repr(sorted(told.items())).encode())
    for people in (train, validation):
        digest.update(people.labels.tobytes())
        digest.update(np.ascontiguousarray(people.crops).data)
    return digest.hexdigest()


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
