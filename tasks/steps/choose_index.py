"""Build the index that a gallery and a budget call for: exact where that is quick enough, else the best of what was measured.

N faces, Q queries, D dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from store.fingerprints import sha256_hex
from store.index_choice import Candidate, IndexBudget, choose_index, kind_for
from store.index_file import build_exact_index, build_index, index_bytes
from store.index_search import SearchSettings
from store.manifest import IndexRecord, TrainingRecord
from tasks.steps.measure_index import Gallery, Point, Questions, latency_of, tune

__all__ = ["BuiltIndex", "build_as_recorded", "build_chosen"]

_TRIAL_FACES = 50_000
_TRIALS = 3
_SEED = 20_261_127

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BuiltIndex:
    """An index, and what the manifest says of it.

    Attributes:
        data: the file.
        key: as FAISS writes such an index.
        parameters: kind, and how it is searched.
        why: in words.
        measured: what was tried: kind, key, faces it was tried with, and each setting's recall@10 and latency.
        change: "updated" where it is a changed copy of the one before.
        trained: on what, and what has changed since, of an updated one.
    """

    data: bytes
    key: str
    parameters: dict[str, Any]
    why: str
    measured: tuple[dict[str, Any], ...] = ()
    change: Literal["rebuilt", "updated"] = "rebuilt"
    trained: TrainingRecord | None = None

    def record(self, budget: IndexBudget) -> IndexRecord:
        """What the manifest says of it."""
        return IndexRecord(
            key=self.key,
            metric="inner_product",
            parameters=self.parameters,
            why=self.why,
            change=self.change,
            bytes=len(self.data),
            sha256=sha256_hex(self.data),
            budget=budget.as_json(),
            measured=list(self.measured),
            trained=self.trained,
        )


@dataclass(frozen=True)
class _Trial:
    """A kind that was built and measured."""

    candidate: Candidate
    index: Any
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


def build_chosen(ids_N: Ints, vectors_ND: Floats, *, budget: IndexBudget, queries: Callable[[], Floats]) -> BuiltIndex:
    """The index for these faces and this budget.

    Where exact search is too slow or too large, the first kinds that fit are built of a sample, tuned on held-out queries, and
    compared with exact search there; the quickest that is right enough is built of all faces and tuned again.

    Args:
        ids_N: int64, ascending.
        vectors_ND: float32, unit length.
        budget: what it may take.
        queries: makes held-out queries, float32 (Q, D); called only where something approximate is tried.

    Raises:
        ArtifactError: a vector is not finite or not of unit length; the message names its face.
        VersionError: nothing fits into the memory; the message has the figures.
    """
    choice = choose_index(len(ids_N), vectors_ND.shape[1], budget)
    if not choice.candidates:
        return BuiltIndex(build_exact_index(ids_N, vectors_ND), "Flat", {}, choice.why)
    asked_QD = queries()
    sample = _sample(ids_N, vectors_ND)
    asked = Questions.of(asked_QD, sample)
    trials = [_try(candidate, asked, budget) for candidate in choice.candidates[:_TRIALS]]
    exact = None if choice.exact is None else _try_exact(choice.exact, asked)
    tried = [*trials, *([exact] if exact else [])]
    measured = tuple(trial.as_json() for trial in tried)
    won = min(
        (trial for trial in tried if trial.best.least >= budget.recall), key=lambda t: t.best.p50_ms, default=None
    )
    if won is None and exact is None:
        won = max(trials, key=lambda trial: trial.best.recall)
    if won is None or won is exact:
        why = f"{choice.why}, but of what was measured nothing quicker reached recall@10 of {budget.recall}: {_told(tried)}"
        return BuiltIndex(build_exact_index(ids_N, vectors_ND), "Flat", {}, why, measured)
    candidate = kind_for(won.candidate.kind, *vectors_ND.shape)
    if won.faces == len(ids_N):
        index, best = won.index, won.best
    else:
        index = build_index(candidate, ids_N, vectors_ND)
        best, points = tune(index, Questions.of(asked_QD, Gallery(ids_N, vectors_ND)), recall=budget.recall)
        measured = (replace(won, candidate=candidate, points=points, faces=len(ids_N)).as_json(), *measured)
    return BuiltIndex(
        index_bytes(index),
        candidate.key,
        {"kind": candidate.kind, **best.settings.as_json()},
        f"{choice.why}; {_verdict(best, budget)}; measured with {sample.ids.size:,} faces: {_told(tried)}",
        measured,
    )


def build_as_recorded(record: IndexRecord, ids_N: Ints, vectors_ND: Floats) -> BuiltIndex:
    """The same kind of index of fewer faces, trained on these alone, to be searched as before; exact where they are too few.

    Args:
        record: of the index whose place it takes.
        ids_N: int64, ascending.
        vectors_ND: float32, unit length.
    """
    candidate = kind_for(record.parameters.get("kind", "exact"), *vectors_ND.shape)
    data = index_bytes(build_index(candidate, ids_N, vectors_ND))
    why = record.trained.why if record.trained else record.why
    if candidate.kind != "exact":
        return BuiltIndex(data, candidate.key, dict(record.parameters), why, tuple(record.measured))
    why = why if record.key == "Flat" else "exact search: too few faces are left to train on"
    return BuiltIndex(data, "Flat", {}, why, tuple(record.measured))


def _sample(ids_N: Ints, vectors_ND: Floats) -> Gallery:
    if len(ids_N) <= _TRIAL_FACES:
        return Gallery(ids_N, vectors_ND)
    rows = np.sort(np.random.default_rng(_SEED).permutation(len(ids_N))[:_TRIAL_FACES])
    return Gallery(ids_N[rows], vectors_ND[rows])


def _try(candidate: Candidate, asked: Questions, budget: IndexBudget) -> _Trial:
    gallery = asked.gallery
    candidate = kind_for(candidate.kind, *gallery.vectors.shape)
    index = build_index(candidate, gallery.ids, gallery.vectors)
    best, points = tune(index, asked, recall=budget.recall)
    return _Trial(candidate, index, best, points, len(gallery.ids))


def _try_exact(candidate: Candidate, asked: Questions) -> _Trial:
    gallery = asked.gallery
    candidate = kind_for(candidate.kind, *gallery.vectors.shape)
    index = build_index(candidate, gallery.ids, gallery.vectors)
    point = Point(SearchSettings(), 1.0, 1.0, latency_of(index, asked.queries, SearchSettings()).p50_ms)
    return _Trial(candidate, None, point, [point], len(gallery.ids))


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
