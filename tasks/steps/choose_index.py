"""Choose the index that a gallery and a budget call for: exact where that is quick enough, else the best of what was measured.

Q queries, D dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.exact_search import NearestFaces
from store.index_choice import Candidate, Choice, IndexBudget, choose_index, kind_for
from store.index_edit import misfit_of
from store.index_file import build_index
from store.index_search import SearchSettings
from store.index_stream import WrittenIndex
from store.index_train import sample_size
from store.index_trial import open_mapped
from store.trained_index import without_faces
from store.version_files import INDEX_FILE
from tasks.steps.face_blocks import FaceBlocks, Gallery
from tasks.steps.fill_index import (
    BuiltIndex,
    build_exact,
    fill_index,
    sample_faces,
    some_of,
    train_kind,
    training_record,
)
from tasks.steps.index_device import centres_for, screen_for
from tasks.steps.measure_index import KEPT, Point, Questions, latency_of, tune

__all__ = [
    "ChosenKind",
    "TrainedKind",
    "build_chosen",
    "choose_trained",
    "tuned",
]

_TRIAL_FACES = 50_000
_TRIALS = 3

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ChosenKind:
    """The kind of approximate index that was the quickest of those right enough, and what is said of it when it is filled.

    Attributes:
        candidate: for all faces.
        why: something approximate was tried.
        told: what was measured, in words.
        measured: the same, as of BuiltIndex.
        tried_faces: how many faces it was measured with.
        misfit: of the sample, as of `misfit_of`.
    """

    candidate: Candidate
    why: str
    told: str
    measured: tuple[dict[str, Any], ...]
    tried_faces: int
    misfit: float


@dataclass(frozen=True)
class TrainedKind:
    """What was chosen, and what faces are coded with.

    Attributes:
        chosen: the kind.
        trained: the FAISS index, without faces, as of `train_index`.
        asked: the queries that were made, which have found nobody yet.
    """

    chosen: ChosenKind
    trained: Any
    asked: NearestFaces


@dataclass(frozen=True)
class _Trial:
    """A kind that was built and measured."""

    candidate: Candidate
    best: Point
    points: list[Point]
    faces: int

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.candidate.kind,
            "key": self.candidate.key,
            "faces": self.faces,
            "memory_bytes": self.candidate.memory_bytes,
            "points": [point.as_json() for point in self.points],
        }


def build_chosen(
    faces: FaceBlocks, *, budget: IndexBudget, queries: Callable[[], Floats], folder: Path, device: str = "cpu"
) -> BuiltIndex:
    """The index for these faces and this budget.

    Where exact search is too slow or too large, the first kinds that fit are built of a sample, tuned on held-out queries, and
    compared with exact search there; the quickest that is right enough is built of all faces and tuned again.

    Args:
        faces: read twice, once for a sample; and once where exact search is taken without more ado.
        budget: what it may take.
        queries: makes held-out queries, float32 (Q, D); called only where something approximate is tried.
        folder: of this machine, where the file is made; it needs room for the file twice, and 16 bytes a face.
        device: as of `index_device`, where exact neighbours and the centres of lists are found.

    Raises:
        ArtifactError: a vector is not finite or not of unit length; the message names its face.
        VersionError: nothing fits into the memory; the message has the figures.
    """
    made = choose_trained(faces, budget=budget, queries=queries, folder=folder, device=device)
    if isinstance(made, BuiltIndex):
        return made
    written, near = fill_index(made.trained, faces, folder, made.asked, screen_for(device))
    return tuned(made.chosen, written, near, faces=len(faces.ids), budget=budget, folder=folder)


def choose_trained(
    faces: FaceBlocks, *, budget: IndexBudget, queries: Callable[[], Floats], folder: Path, device: str = "cpu"
) -> BuiltIndex | TrainedKind:
    """The first half of `build_chosen`: the kind that is chosen, trained on a sample; or the exact index, finished.

    Args:
        faces: read once, for a sample, or for the exact index.
        budget: what it may take.
        queries: as of `build_chosen`.
        folder: of this machine, where an exact index is made.
        device: as of `build_chosen`.

    Raises:
        ArtifactError: a vector of the sample, or of an exact index, is none; the message names its face.
        VersionError: nothing fits into the memory; the message has the figures.
    """
    choice = choose_index(len(faces.ids), faces.dimension, budget)
    if not choice.candidates:
        return build_exact(faces, choice.why, folder)
    asked_QD = queries()
    sample = _sample(faces, choice)
    some = some_of(sample, _TRIAL_FACES)
    asked = Questions.of(asked_QD, some, device=device)
    trials = [_try(candidate, some, asked, budget, device) for candidate in choice.candidates[:_TRIALS]]
    exact = None if choice.exact is None else _try_exact(choice.exact, some, asked)
    tried = [*trials, *([exact] if exact else [])]
    measured = tuple(trial.as_json() for trial in tried)
    won = min(
        (trial for trial in tried if trial.best.least >= budget.recall), key=lambda t: t.best.p50_ms, default=None
    )
    if won is None and exact is None:
        won = max(trials, key=lambda trial: trial.best.recall)
    if won is None or won is exact:
        why = f"{choice.why}, but of what was measured nothing quicker reached recall@10 of {budget.recall}: {_told(tried)}"
        return replace(build_exact(faces, why, folder), measured=measured)
    candidate = kind_for(won.candidate.kind, len(faces.ids), faces.dimension)
    trained = train_kind(candidate, sample, device)
    told = f"measured with {len(some.ids):,} faces: {_told(tried)}"
    misfit = misfit_of(without_faces(trained), sample.vectors) or 0.0
    chosen = ChosenKind(candidate, choice.why, told, measured, tried_faces=won.faces, misfit=misfit)
    return TrainedKind(chosen, trained, NearestFaces.of(asked_QD, depth=KEPT))


def tuned(
    chosen: ChosenKind, written: WrittenIndex, near: NearestFaces, *, faces: int, budget: IndexBudget, folder: Path
) -> BuiltIndex:
    """The second half of `build_chosen`: the index is filled, and its settings are found.

    Args:
        chosen: the kind.
        written: the file of all faces in the folder.
        near: the nearest of all faces to the queries.
        faces: how many there are.
        budget: what it may take.
        folder: of this machine.
    """
    index = open_mapped(str(folder / INDEX_FILE))
    best, points = tune(index, Questions(near), recall=budget.recall)
    measured = chosen.measured
    if chosen.tried_faces < faces:
        measured = (_Trial(chosen.candidate, best, points, faces).as_json(), *measured)
    why = f"{chosen.why}; {_verdict(best, budget)}; {chosen.told}"
    return BuiltIndex(
        folder / INDEX_FILE,
        written,
        chosen.candidate.key,
        {"kind": chosen.candidate.kind, **best.settings.as_json()},
        why,
        measured,
        trained=training_record(index, chosen.misfit, faces, best.recall, why),
        near=near,
    )


def _sample(faces: FaceBlocks, choice: Choice) -> Gallery:
    """As many faces as the kinds that are tried want at most, in one pass."""
    total, dimension = len(faces.ids), faces.dimension
    wanted = [sample_size(kind_for(one.kind, total, dimension)) for one in choice.candidates[:_TRIALS]]
    return sample_faces(faces, max(_TRIAL_FACES, *wanted))


def _try(candidate: Candidate, some: Gallery, asked: Questions, budget: IndexBudget, device: str) -> _Trial:
    candidate = kind_for(candidate.kind, *some.vectors.shape)
    centres_LD = centres_for(candidate, some_of(some, sample_size(candidate)).vectors, device=device)
    best, points = tune(build_index(candidate, some.ids, some.vectors, centres_LD), asked, recall=budget.recall)
    return _Trial(candidate, best, points, len(some.ids))


def _try_exact(candidate: Candidate, some: Gallery, asked: Questions) -> _Trial:
    candidate = kind_for(candidate.kind, *some.vectors.shape)
    index = build_index(candidate, some.ids, some.vectors)
    point = Point(SearchSettings(), 1.0, 1.0, latency_of(index, asked.queries, SearchSettings()).p50_ms)
    return _Trial(candidate, point, [point], len(some.ids))


def _verdict(best: Point, budget: IndexBudget) -> str:
    quick = f"{best.p50_ms:.2g} ms a query on one core"
    if best.p50_ms > budget.latency_ms:
        quick += f", more than the {budget.latency_ms:g} ms wanted: nothing that was measured is quicker"
    if best.least < budget.recall:
        return f"nothing that fits is sure to reach recall@10 of {budget.recall}: {best.recall:.3f} in {quick}"
    return f"recall@10 {best.recall:.3f} on held-out queries, {quick}"


def _told(trials: list[_Trial]) -> str:
    return ", ".join(
        f"{t.candidate.kind} ({t.candidate.key}) {t.best.recall:.3f} in {t.best.p50_ms:.2g} ms" for t in trials
    )
