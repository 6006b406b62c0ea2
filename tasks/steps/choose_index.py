"""Build the index that a gallery and a budget call for: exact where that is quick enough, else the best of what was measured.

It is written block by block into a file, and never in memory as a whole. N faces, S of them in a sample, Q queries, D dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.exact_search import NearestFaces
from models.near_pairs import Screen, near_pairs
from store.index_choice import Candidate, Choice, IndexBudget, choose_index, kind_for
from store.index_edit import misfit_of, unevenness_of
from store.index_file import build_index
from store.index_search import SearchSettings
from store.index_stream import Spool, WrittenIndex
from store.index_train import sample_size, train_index
from store.index_trial import open_mapped
from store.manifest import IndexRecord, TrainingRecord
from store.trained_index import without_faces
from tasks.steps.face_blocks import FaceBlocks, Gallery, sample_rows
from tasks.steps.index_device import centres_for, screen_for
from tasks.steps.measure_index import KEPT, Point, Questions, latency_of, tune

__all__ = [
    "INDEX_FILE",
    "BuiltIndex",
    "ChosenKind",
    "TrainedKind",
    "build_as_recorded",
    "build_chosen",
    "choose_trained",
    "tuned",
]

INDEX_FILE = "index.faiss"

_TRIAL_FACES = 50_000
_TRIALS = 3
_SEED = 20_261_127

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BuiltIndex:
    """An index, and what the manifest says of it.

    Attributes:
        path: of the file, on this machine.
        written: its size and hash.
        key: as FAISS writes such an index.
        parameters: kind, and how it is searched.
        why: in words.
        measured: what was tried: kind, key, faces it was tried with, and each setting's recall@10 and latency.
        change: "updated" where it is a changed copy of the one before.
        trained: on what an approximate one was trained, and what has changed since.
        near: the nearest of all faces to the queries that it was tuned with; None where there were none.
    """

    path: Path
    written: WrittenIndex
    key: str
    parameters: dict[str, Any]
    why: str
    measured: tuple[dict[str, Any], ...] = ()
    change: Literal["rebuilt", "updated"] = "rebuilt"
    trained: TrainingRecord | None = None
    near: NearestFaces | None = None

    def record(self, budget: IndexBudget) -> IndexRecord:
        """What the manifest says of it."""
        return IndexRecord(
            key=self.key,
            metric="inner_product",
            parameters=self.parameters,
            why=self.why,
            change=self.change,
            bytes=self.written.bytes,
            sha256=self.written.sha256,
            budget=budget.as_json(),
            measured=list(self.measured),
            trained=self.trained,
        )


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
    written, near = _filled(made.trained, faces, folder, made.asked, screen_for(device))
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
        return _exact(faces, choice.why, folder)
    asked_QD = queries()
    sample = _sample(faces, choice)
    some = _some(sample, _TRIAL_FACES)
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
        return replace(_exact(faces, why, folder), measured=measured)
    candidate = kind_for(won.candidate.kind, len(faces.ids), faces.dimension)
    trained = _trained(candidate, sample, device)
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
        trained=_training(index, chosen.misfit, faces, best.recall, why),
        near=near,
    )


def build_as_recorded(record: IndexRecord, faces: FaceBlocks, *, folder: Path) -> BuiltIndex:
    """The same kind of index of fewer faces, trained on these alone, to be searched as before; exact where they are too few.

    Args:
        record: of the index whose place it takes.
        faces: read twice.
        folder: as of `build_chosen`.
    """
    candidate = kind_for(record.parameters.get("kind", "exact"), len(faces.ids), faces.dimension)
    why = record.trained.why if record.trained else record.why
    if candidate.kind == "exact":
        why = why if record.key == "Flat" else "exact search: too few faces are left to train on"
        return replace(_exact(faces, why, folder), measured=tuple(record.measured))
    sample = _taken(faces, sample_size(candidate))
    trained = _trained(candidate, sample)
    misfit = misfit_of(without_faces(trained), sample.vectors) or 0.0
    written, _ = _filled(trained, faces, folder, _nobody_asks(faces))
    return BuiltIndex(
        folder / INDEX_FILE,
        written,
        candidate.key,
        dict(record.parameters),
        why,
        tuple(record.measured),
        trained=_training(open_mapped(str(folder / INDEX_FILE)), misfit, len(faces.ids), None, why),
    )


def _exact(faces: FaceBlocks, why: str, folder: Path) -> BuiltIndex:
    candidate = kind_for("exact", len(faces.ids), faces.dimension)
    nobody = Gallery(faces.ids[:0], np.zeros((0, faces.dimension), np.float32))
    written, _ = _filled(_trained(candidate, nobody), faces, folder, _nobody_asks(faces))
    return BuiltIndex(folder / INDEX_FILE, written, "Flat", {}, why)


def _trained(candidate: Candidate, sample: Gallery, device: str = "cpu") -> Any:
    vectors_SD = _some(sample, sample_size(candidate)).vectors
    return train_index(candidate, vectors_SD, centres_for(candidate, vectors_SD, device=device))


def _filled(
    trained: Any, faces: FaceBlocks, folder: Path, near: NearestFaces, screen: Screen = near_pairs
) -> tuple[WrittenIndex, NearestFaces]:
    """Write an index of all faces; in the same pass find the queries' nearest."""
    with Spool(trained, faces.ids, folder) as spool:
        for rows_B, vectors_BD in faces.blocks():
            spool.add(rows_B, vectors_BD)
            near = near.added(faces.ids[rows_B], vectors_BD, screen=screen)
        return spool.write(folder / INDEX_FILE), near


def _nobody_asks(faces: FaceBlocks) -> NearestFaces:
    return NearestFaces.of(np.zeros((0, faces.dimension), np.float32), depth=0)


def _training(index: Any, misfit: float, faces: int, recall: float | None, why: str) -> TrainingRecord:
    """Of an index that was made anew."""
    return TrainingRecord(
        faces=faces,
        changed=0,
        unevenness=unevenness_of(index),
        misfit=misfit,
        recall_at_10=recall,
        why=why,
    )


def _sample(faces: FaceBlocks, choice: Choice) -> Gallery:
    """As many faces as the kinds that are tried want at most, in one pass."""
    total, dimension = len(faces.ids), faces.dimension
    wanted = [sample_size(kind_for(one.kind, total, dimension)) for one in choice.candidates[:_TRIALS]]
    return _taken(faces, max(_TRIAL_FACES, *wanted))


def _taken(faces: FaceBlocks, count: int) -> Gallery:
    rows_S = sample_rows(len(faces.ids), count, seed=_SEED)
    return Gallery(faces.ids[rows_S], faces.take(rows_S))


def _some(sample: Gallery, count: int) -> Gallery:
    """So many of a sample at most, drawn at random."""
    rows_S = sample_rows(len(sample.ids), count, seed=_SEED + 1)
    return sample if len(rows_S) == len(sample.ids) else Gallery(sample.ids[rows_S], sample.vectors[rows_S])


def _try(candidate: Candidate, some: Gallery, asked: Questions, budget: IndexBudget, device: str) -> _Trial:
    candidate = kind_for(candidate.kind, *some.vectors.shape)
    centres_LD = centres_for(candidate, _some(some, sample_size(candidate)).vectors, device=device)
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
