"""Retrieval: how many of a face's nearest others are the same person, and how that holds in larger galleries.

N faces, Q of them asked in one chunk, D dimensions, G faces of a gallery.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RankOne", "Retrieval", "measure_retrieval"]

CHUNK_CELLS = 4_000_000
"""Cosines held at once; with their order, some hundred megabytes."""

GALLERIES = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)


@dataclass(frozen=True)
class RankOne:
    """The share of faces, in [0, 1], that come first in a gallery of so many faces, one of which is the same person's."""

    gallery: int
    accuracy: float


@dataclass(frozen=True)
class Retrieval:
    """What asking each face of a set for the others gives.

    Attributes:
        queries: faces asked: those whose person has another one.
        faces: all of them, asked or not.
        people: whose faces they are.
        precision_at: by k, the mean share of a query's k nearest that are the same person.
        possible_at: by k, what it would be if all the person's other faces came first; few people have k others.
        mean_average_precision: over the whole ranking.
        rank_one: by rising gallery; the last has as many strangers as every query has.
    """

    queries: int
    faces: int
    people: int
    precision_at: dict[int, float]
    possible_at: dict[int, float]
    mean_average_precision: float
    rank_one: tuple[RankOne, ...]


def measure_retrieval(
    emb_ND: NDArray[np.floating[Any]],
    labels_N: Sequence[Any] | NDArray[Any],
    *,
    ks: Sequence[int] = (1, 5, 10),
    galleries: Sequence[int] = GALLERIES,
    max_queries: int = 10_000,
    seed: int = 0,
) -> Retrieval:
    """Ask each face whose person has another for all others, by cosine; of equally near faces the first counts.

    Average precision is the mean, over a query's relevant faces, of the precision at the rank of each.

    Rank-1 in a gallery of G: the query's person is there once, beside G - 1 strangers. It is found when no stranger is as
    near. Instead of drawing galleries, the chance is computed over all there are: where r of n strangers are as near as
    the wanted face, C(n - r, G - 1) / C(n, G - 1) of the galleries hold none of them. The mean is taken over the person's
    other faces, then over queries.

    Args:
        emb_ND: floating, (N, D), of any length but zero.
        labels_N: the person of each face, integers or strings.
        ks: ranks to report precision at, each at least 1 and reported where there are so many others.
        galleries: sizes G, each at least 2 and reported where there are so many strangers.
        max_queries: at most so many are asked, chosen by `seed`; all faces stay in the gallery.
        seed: of that choice.

    Raises:
        ValueError: shapes that do not agree, or nobody with two faces or no two people; the message says which.

    References:
        Rank-1 against strangers: Kemelmacher-Shlizerman, Seitz, Miller, Brossard. The MegaFace Benchmark. CVPR 2016.
        There the strangers are drawn; here the mean over all draws is exact.
    """
    labels = np.asarray(labels_N)
    if emb_ND.ndim != 2 or labels.shape != emb_ND.shape[:1]:
        raise ValueError(f"faces: got embeddings {emb_ND.shape} and labels {labels.shape}, wanted (N, D) and (N,)")
    _, person_N, photos = np.unique(labels, return_inverse=True, return_counts=True)
    asked = np.flatnonzero(photos[person_N] >= 2) if len(labels) else np.empty(0, np.int64)
    if not asked.size or len(photos) < 2:
        raise ValueError(f"faces: got {len(labels)} of {len(photos)} people, wanted two people, one with two faces")
    if len(asked) > max_queries:
        asked = np.sort(np.random.default_rng(seed).choice(asked, max_queries, replace=False))
    unit_ND = emb_ND / np.linalg.norm(emb_ND, axis=1, keepdims=True)
    strangers = len(labels) - int(photos[person_N[asked]].max())
    tally = _Tally(
        ks=[k for k in ks if k < len(labels)],
        galleries=sorted({g for g in galleries if g - 1 < strangers} | {strangers + 1}),
        faces=len(labels),
    )
    rows = max(1, CHUNK_CELLS // len(labels))
    for start in range(0, len(asked), rows):
        chunk = asked[start : start + rows]
        cosines_QN = unit_ND[chunk] @ unit_ND.T
        cosines_QN[np.arange(len(chunk)), chunk] = -np.inf  # last, and cut off
        order_QN = np.argsort(-cosines_QN, axis=1, kind="stable")[:, :-1]
        for row, query in enumerate(chunk):
            order = order_QN[row]
            tally.add(person_N[order] == person_N[query], cosines_QN[row, order])
    return tally.result(people=len(photos))


class _Tally:
    """Sums over queries."""

    def __init__(self, *, ks: list[int], galleries: list[int], faces: int) -> None:
        self._ks, self._faces, self._queries = ks, faces, 0
        self._galleries = np.array(galleries)
        self._hits, self._possible = np.zeros(len(ks)), np.zeros(len(ks))
        self._average_precision = 0.0
        self._rank_one = np.zeros(len(galleries))
        self._log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, faces + 1)))])

    def add(self, right: NDArray[np.bool_], cosines: NDArray[np.floating[Any]]) -> None:
        """One query's ranking of all other faces: which are its person's, and how near each is."""
        ranks = np.flatnonzero(right) + 1
        self._queries += 1
        self._hits += [right[:k].sum() / k for k in self._ks]
        self._possible += [min(len(ranks), k) / k for k in self._ks]
        self._average_precision += float((np.arange(1, len(ranks) + 1) / ranks).mean())
        strangers = -cosines[~right]  # rising
        as_near = np.searchsorted(strangers, -cosines[right], side="right")
        self._rank_one += self._chance_of_none(as_near, strangers=len(strangers)).mean(axis=0)

    def _chance_of_none(self, as_near: NDArray[Any], *, strangers: int) -> NDArray[np.float64]:
        """For each count of near strangers and each gallery, the share of galleries that hold none of them."""
        drawn = self._galleries - 1
        left = strangers - as_near[:, None]
        log_f = self._log_factorial
        room = np.maximum(left - drawn, 0)
        log_chance = log_f[left] - log_f[room] - log_f[strangers] + log_f[strangers - drawn]
        return np.where(left >= drawn, np.exp(log_chance), 0.0)

    def result(self, *, people: int) -> Retrieval:
        """The means."""
        n = self._queries
        return Retrieval(
            queries=n,
            faces=self._faces,
            people=people,
            precision_at={k: float(hits / n) for k, hits in zip(self._ks, self._hits, strict=True)},
            possible_at={k: float(best / n) for k, best in zip(self._ks, self._possible, strict=True)},
            mean_average_precision=self._average_precision / n,
            rank_one=tuple(
                RankOne(int(size), float(share / n))
                for size, share in zip(self._galleries, self._rank_one, strict=True)
            ),
        )
