"""The batches of a training: which faces are shown, how each is changed, and how a batch is cut into parts.

N faces.
"""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.augment import Changes, draw_changes
from models.pairs import sample_batch
from models.training_settings import TrainingSettings

__all__ = ["Batch", "Batches", "Drawn", "cut_batch"]

Rows = NDArray[np.int64]


class Drawn(NamedTuple):
    """Row numbers of a batch's faces, int64 (N,), and what is done to each; None for nothing."""

    rows: Rows
    changes: Changes | None


@dataclass(frozen=True)
class Batch:
    """A batch in parts: faces of part k are rows[bounds[k] : bounds[k + 1]].

    Attributes:
        rows: int64 (N,), part by part.
        changes: what is done to each of them.
        bounds: where parts begin, and N.
    """

    rows: Rows
    changes: Changes | None
    bounds: tuple[int, ...]

    def slices(self, first: int, last: int) -> list[slice]:
        """The places of parts `first` to `last`, the last one left out."""
        return [slice(*pair) for pair in itertools.pairwise(self.bounds[first : last + 1])]

    def sizes(self, parts: int) -> list[int]:
        """Faces of each member of a team, to whom `parts` parts belong, in turn."""
        ends = self.bounds[::parts]
        return [last - first for first, last in itertools.pairwise(ends)]


class Batches:
    """Draws one batch after another; its random numbers are part of a training's state.

    Args:
        labels_N: integer, (N,), the person of each face.
        settings: people, photos and strangers a batch, augmentation, and the seed.
    """

    def __init__(self, labels_N: Rows, settings: TrainingSettings) -> None:
        self._labels, self._settings = labels_N, settings
        self._choice = np.random.default_rng(settings.seed)
        self._change = torch.Generator().manual_seed(settings.seed)

    def draw(self) -> Drawn:
        """The next batch."""
        settings = self._settings
        rows = sample_batch(
            self._labels,
            people=settings.batch_people,
            photos=settings.batch_photos,
            strangers=settings.batch_strangers,
            stranger_views=settings.stranger_views,
            generator=self._choice,
        )
        if settings.augment is None:
            return Drawn(rows, None)
        return Drawn(rows, draw_changes(len(rows), settings.augment, generator=self._change))

    def state(self) -> tuple[dict[str, Any], Tensor]:
        """The random numbers' state: numpy's as JSON can say it, torch's as uint8."""
        return dict(self._choice.bit_generator.state), self._change.get_state()

    def restore(self, choice: dict[str, Any], change: Tensor) -> None:
        """Go on from a state."""
        self._choice.bit_generator.state = choice
        self._change.set_state(change)


def cut_batch(drawn: Drawn, *, parts: int) -> Batch:
    """A batch in parts of even size that mix people: every n-th face goes into the same one.

    Args:
        drawn: the batch.
        parts: how many, at least 1.
    """
    places = [np.arange(len(drawn.rows))[part::parts] for part in range(parts)]
    order = np.concatenate(places)
    changes = drawn.changes
    if changes is not None and parts > 1:
        changes = Changes(*(column[torch.from_numpy(order)] for column in changes))
    return Batch(drawn.rows[order], changes, (0, *itertools.accumulate(map(len, places))))
