"""Measure an index against exact search: recall, latency, and what it costs to be right enough.

Q queries, K answers a query, D dimensions.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from models.exact_search import NearestFaces
from models.recall import recalls
from store.cores import one_core
from store.index_filter import Filter
from store.index_search import SearchSettings, parts_of, search
from tasks.steps.face_blocks import FaceBlocks
from tasks.steps.index_device import screen_for

__all__ = [
    "DEPTH",
    "KEPT",
    "Latency",
    "Point",
    "Questions",
    "latency_of",
    "measured_at",
    "recall_of",
    "tune",
]

DEPTH = 100
"""Nearest faces that recall is measured of at most."""

KEPT = 192
"""Nearest faces that are kept of a query: some may be removed, or tie with the last that counts, and the truth is known all the same."""

_LATENCY_QUERIES = 24
_QUANTILES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_SURE = 1.645  # standard errors: the recall of all queries is above the least one nineteen times of twenty
_REFINE = (2.0, 5.0, 10.0, 20.0, 35.0, 50.0, 75.0, 100.0, 150.0, 200.0, 350.0, 500.0)
_REFINE_OF_LISTS = (10.0, 50.0)
_GAIN = 0.003  # of recall, below which looking twice as hard in one direction is given up
_NPROBE_FROM = 4


@dataclass(frozen=True)
class Questions:
    """Queries and their exact nearest faces among those that may be found."""

    near: NearestFaces

    @classmethod
    def of(
        cls, queries_QD: npt.NDArray[np.float32], faces: FaceBlocks, *, kept: int = KEPT, device: str = "cpu"
    ) -> Self:
        """Compared with everybody, block by block, on a device as `index_device` names it."""
        near, screen = NearestFaces.of(queries_QD, depth=kept), screen_for(device)
        for rows_B, vectors_BD in faces.blocks():
            near = near.added(faces.ids[rows_B], vectors_BD, screen=screen)
        return cls(near)

    @property
    def queries(self) -> npt.NDArray[np.float32]:
        """Float32 (Q, D), unit length."""
        return self.near.queries

    def recalls(self, found_QK: npt.NDArray[np.int64], *, k: int) -> npt.NDArray[np.float64]:
        """Recall@k of each query."""
        return recalls(found_QK, self.near, k=k)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one query for ten faces on one core, of each query that was asked."""

    took_ms: npt.NDArray[np.float64]

    @property
    def p50_ms(self) -> float:
        """The median."""
        return float(np.median(self.took_ms))

    def as_json(self) -> dict[str, Any]:
        """For a manifest."""
        quantiles = np.quantile(self.took_ms, _QUANTILES).tolist()
        return {
            "p50_ms": round(self.p50_ms, 3),
            "p99_ms": round(float(np.quantile(self.took_ms, 0.99)), 3),
            "latency_quantiles_ms": [[q, round(ms, 3)] for q, ms in zip(_QUANTILES, quantiles, strict=True)],
        }


@dataclass(frozen=True)
class Point:
    """One way to ask an index, measured.

    Attributes:
        settings: that way.
        recall: recall@10, the mean of all queries.
        least: what the recall is above, nineteen times of twenty.
        p50_ms: of one query on one core.
    """

    settings: SearchSettings
    recall: float
    least: float
    p50_ms: float

    def as_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {**self.settings.as_json(), "recall_at_10": round(self.recall, 4), "p50_ms": round(self.p50_ms, 3)}


def recall_of(
    index: Any,
    asked: Questions,
    settings: SearchSettings,
    *,
    ks: tuple[int, ...] = (1, 10, 100),
    allowed: Filter | None = None,
) -> dict[int, float]:
    """Mean recall@k for each k; a search for each, as a user would make it."""
    found = {k: search(index, asked.queries, k=k, settings=settings, allowed_A=allowed)[1] for k in ks}
    return {k: float(asked.recalls(ids_QK, k=k).mean()) for k, ids_QK in found.items()}


def latency_of(
    index: Any, queries_QD: npt.NDArray[np.float32], settings: SearchSettings, *, seconds: float = 2.0
) -> Latency:
    """How long one query takes when nobody else asks; as many are asked as fit into some seconds, at least eight where there are."""
    took, until = [], time.perf_counter() + seconds
    with one_core():
        search(index, queries_QD[:1], k=10, settings=settings)
        for n in range(len(queries_QD)):
            start = time.perf_counter()
            search(index, queries_QD[n : n + 1], k=10, settings=settings)
            took.append(1e3 * ((now := time.perf_counter()) - start))
            if now > until and len(took) >= 8:
                break
    return Latency(np.array(took))


def tune(index: Any, asked: Questions, *, recall: float) -> tuple[Point, list[Point]]:
    """The quickest way of asking that is right enough, and all that were measured.

    Args:
        index: an approximate one, of the questions' gallery.
        asked: held-out queries.
        recall: recall@10 that is wanted; where nothing reaches it, the way with the best one is given.
    """
    points: list[Point] = []
    for way in _ways(index):
        before = -1.0
        for settings in way:
            points.append(measured_at(index, asked, settings))
            if points[-1].least >= recall or points[-1].recall < before + _GAIN:
                break
            before = points[-1].recall
    enough = [point for point in points if point.least >= recall]
    best = min(enough, key=lambda point: point.p50_ms) if enough else max(points, key=lambda point: point.recall)
    return best, points


def _ways(index: Any) -> Iterator[list[SearchSettings]]:
    """Settings by rising effort, in one or several directions."""
    parts = parts_of(index)
    if parts.lists is None:
        yield [SearchSettings(refine=refine) for refine in _REFINE]
        return
    nlist = int(parts.lists.nlist)
    probes = [n for n in (_NPROBE_FROM << step for step in range(16)) if n < nlist] + [nlist]
    for refine in _REFINE_OF_LISTS if parts.finer is not None else (None,):
        yield [SearchSettings(nprobe=nprobe, refine=refine) for nprobe in probes]


def measured_at(index: Any, asked: Questions, settings: SearchSettings) -> Point:
    """One way of asking, measured."""
    shares_Q = asked.recalls(search(index, asked.queries, k=10, settings=settings)[1], k=10)
    error = float(shares_Q.std()) / max(1, len(shares_Q)) ** 0.5
    took = latency_of(index, asked.queries[:_LATENCY_QUERIES], settings, seconds=1.0)
    return Point(settings, float(shares_Q.mean()), float(shares_Q.mean()) - _SURE * error, took.p50_ms)
