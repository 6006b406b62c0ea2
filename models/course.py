"""The course of a training: its epochs so far, the best of them, and the checkpoint that outlives a kill."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.people import PeopleMetrics
from models.snapshot import Checkpoints, Snapshot
from models.team import ALONE, Team
from models.trainer import EpochLosses, Trainer
from models.training_settings import TrainingSettings

__all__ = ["Course", "EpochRecord", "Keeper", "RunOptions", "StepsDone", "StoppedBy"]

StoppedBy = Literal["epochs", "max_seconds", "patience"]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean losses of its steps (of the objective, and of rebuilding both crops of a pair), and the state after it.

    Validation figures are of the validation people; `validation_loss` is always the contrastive one, so that trainings by
    other losses compare. `seconds` is from the start of the training, `faces_per_second` and `seconds_left` go by the training so far.
    """

    epoch: int
    steps: int
    loss: float
    reconstruction_loss: float
    validation_loss: float
    validation: PeopleMetrics
    learning_rate: float
    seconds: float
    faces_per_second: float
    seconds_left: float

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "EpochRecord":
        """The record that `asdict` made this of."""
        return cls(**{**record, "validation": PeopleMetrics(**record["validation"])})


@dataclass(frozen=True)
class StepsDone:
    """How far a training is: steps over, steps in all, and faces learnt from a second."""

    done: int
    total: int
    faces_per_second: float


@dataclass(frozen=True)
class RunOptions:
    """Where a training runs and who watches it; none of it changes the result on the processor.

    Attributes:
        device: "cpu", "cuda" or "cuda:n".
        team: the processes that train together, every one of them with the same arguments.
        on_epoch: is told of each epoch as it ends.
        on_step: is told after each step.
        checkpoints: where the training's state is kept, and where that of a killed run of the same training is found;
            None keeps none.
        checkpoint_every_s: so often at most, and at every epoch's end.
    """

    device: str = "cpu"
    team: Team = ALONE
    on_epoch: Callable[[EpochRecord], None] | None = None
    on_step: Callable[[StepsDone], None] | None = None
    checkpoints: Checkpoints | None = None
    checkpoint_every_s: float = 60.0


class Course:
    """The epochs so far, and the best of them.

    Args:
        trainer: takes the steps.
        network: what it trains.
        settings: how.
    """

    def __init__(self, trainer: Trainer, network: nn.Module, settings: TrainingSettings) -> None:
        self.trainer, self._network, self._settings = trainer, network, settings
        self.epochs: list[EpochRecord] = []
        self.best = 0
        self.best_weights: dict[str, Tensor] = {}

    def over(self) -> StoppedBy | None:
        """Why there is no further epoch, None if there is one."""
        if len(self.epochs) == self._settings.epochs and self.trainer.steps == self.trainer.total_steps:
            return "epochs"
        if self.epochs and self.trainer.out_of_time():
            return "max_seconds"
        if self._settings.patience is not None and len(self.epochs) - self.best > self._settings.patience:
            return "patience"
        return None

    def add(self, losses: EpochLosses, metrics: PeopleMetrics, validation_loss: float) -> EpochRecord:
        """Note an epoch, and its weights if it is the best so far."""
        trainer = self.trainer
        seconds = trainer.seconds
        record = EpochRecord(
            len(self.epochs) + 1,
            *losses,
            validation_loss,
            metrics,
            trainer.learning_rate,
            seconds,
            faces_per_second=round(trainer.faces / max(seconds, 1e-9), 1),
            seconds_left=round(self._seconds_left(seconds), 1),
        )
        self.epochs.append(record)
        if len(self.epochs) == 1 or _merit(record) > _merit(self.epochs[self.best]):
            self.best, self.best_weights = len(self.epochs) - 1, _copy_of(self._network)
        return record

    def steps_done(self) -> StepsDone:
        """How far it is."""
        trainer = self.trainer
        return StepsDone(trainer.steps, trainer.total_steps, trainer.faces / max(trainer.seconds, 1e-9))

    def _seconds_left(self, seconds: float) -> float:
        trainer, limit = self.trainer, self._settings.max_seconds
        left = seconds * (trainer.total_steps - trainer.steps) / max(1, trainer.steps)
        return left if limit is None else max(0.0, min(left, limit - seconds))


class Keeper:
    """Saves the training's state now and then, and takes up that of a run that was killed.

    Args:
        course: whose state.
        identity: of the training: a checkpoint of another one is refused.
        run: where the state is kept, and how often.
    """

    def __init__(self, course: Course, identity: str, run: RunOptions) -> None:
        self._course, self._identity, self._run = course, identity, run
        self._last_s = 0.0
        self.before: PeopleMetrics | None = None
        """The held-out people's figures with the first weights; set it where `resume` finds none."""

    def resume(self) -> bool:
        """Whether there was a state to take up.

        Raises:
            ValueError: it is another training's.
        """
        snapshot = self._run.checkpoints.load() if self._run.checkpoints is not None else None
        if snapshot is None:
            return False
        document, course = snapshot.document["course"], self._course
        if document["identity"] != self._identity:
            raise ValueError("the checkpoint is another training's: other crops, people or settings; remove it first")
        course.trainer.restore(Snapshot(snapshot.tensors, snapshot.document["trainer"]))
        course.epochs = [EpochRecord.from_json(record) for record in document["epochs"]]
        course.best, course.best_weights = document["best"], snapshot.part("best")
        self.before = PeopleMetrics(**document["before"])
        self._last_s = course.trainer.seconds
        return True

    def keep_in_time(self) -> None:
        """Save the state if the last one is old enough."""
        if self._course.trainer.seconds - self._last_s >= self._run.checkpoint_every_s:
            self.keep()

    def keep(self) -> None:
        """Save the state, as the team's first member."""
        self._last_s = self._course.trainer.seconds
        if self._run.checkpoints is None or self.before is None or not self._run.team.leads:
            return
        course, snapshot = self._course, self._course.trainer.snapshot()
        document = {
            "identity": self._identity,
            "epochs": [asdict(record) for record in course.epochs],
            "best": course.best,
            "before": asdict(self.before),
        }
        best = {f"best.{name}": tensor for name, tensor in course.best_weights.items()}
        self._run.checkpoints.save(
            Snapshot(snapshot.tensors | best, {"trainer": snapshot.document, "course": document})
        )


def _merit(record: EpochRecord) -> tuple[float, float]:
    return record.validation.precision_at_1, -record.validation_loss


def _copy_of(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
