"""Exact nearest neighbours of some queries, kept up to date block by block: the truth that an approximate index is measured against.

Q queries, B faces of a block, D dimensions, K kept a query.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

__all__ = ["NOBODY", "NearestFaces"]

NOBODY = -1
"""Stands where fewer faces are known."""


@dataclass(frozen=True)
class NearestFaces:
    """The K nearest faces of each query among all that were added, by falling cosine, equal cosines by face id.

    Attributes:
        queries: float32 (Q, D), unit length.
        ids: int64 (Q, K), NOBODY where fewer are known.
        cosines: float32 (Q, K), -inf there.
        hidden: float32 (Q,): faces that found no place are no nearer than this; -inf where all have one.
    """

    queries: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]
    cosines: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.float32]

    @classmethod
    def of(cls, queries_QD: npt.NDArray[np.float32], *, depth: int) -> Self:
        """Nobody yet, of `depth` to be kept."""
        shape = (len(queries_QD), depth)
        return cls(
            queries=queries_QD,
            ids=np.full(shape, NOBODY, np.int64),
            cosines=np.full(shape, -np.inf, np.float32),
            hidden=np.full(len(queries_QD), -np.inf, np.float32),
        )

    def sure(self) -> npt.NDArray[np.int64]:
        """How many first places of each query are right whoever is hidden, int64 (Q,)."""
        right = (self.ids != NOBODY) & (self.cosines >= self.hidden[:, None])
        places: npt.NDArray[np.int64] = np.where(np.isneginf(self.hidden), self.ids.shape[1], right.sum(axis=1))
        return places

    def added(self, ids_B: npt.NDArray[np.int64], faces_BD: npt.NDArray[np.float32]) -> "NearestFaces":
        """With a block of faces more."""
        if not len(ids_B) or not len(self.queries):
            return self
        depth = self.ids.shape[1]
        cosines_QB = self.queries @ faces_BD.T
        near = min(depth + 1, len(ids_B))
        best = np.argpartition(-cosines_QB, near - 1, axis=1)[:, :near]
        ids = np.concatenate([self.ids, ids_B[best]], axis=1)
        cosines = np.concatenate([self.cosines, np.take_along_axis(cosines_QB, best, axis=1)], axis=1)
        order = np.lexsort((ids, -cosines), axis=1)
        dropped = np.take_along_axis(cosines, order[:, depth:], axis=1)[:, 0]
        order = order[:, :depth]
        return NearestFaces(
            self.queries,
            np.take_along_axis(ids, order, axis=1),
            np.take_along_axis(cosines, order, axis=1),
            np.maximum(self.hidden, dropped),
        )

    def merged(self, other: "NearestFaces") -> "NearestFaces":
        """Of the same queries, among these faces and others that were searched elsewhere: what one search of all of them finds.

        Args:
            other: as deep; no face is among both.
        """
        if not len(self.queries):
            return self
        depth = self.ids.shape[1]
        ids = np.concatenate([self.ids, other.ids], axis=1)
        cosines = np.concatenate([self.cosines, other.cosines], axis=1)
        order = np.lexsort((ids, -cosines), axis=1)
        dropped = np.take_along_axis(cosines, order[:, depth:], axis=1)[:, 0]
        return NearestFaces(
            self.queries,
            np.take_along_axis(ids, order[:, :depth], axis=1),
            np.take_along_axis(cosines, order[:, :depth], axis=1),
            np.maximum(np.maximum(self.hidden, other.hidden), dropped),
        )

    def removed(self, ids_R: npt.NDArray[np.int64]) -> "NearestFaces":
        """Without some faces; who would take their places is hidden, so fewer places are sure."""
        gone = np.isin(self.ids, ids_R)
        ids, cosines = np.where(gone, NOBODY, self.ids), np.where(gone, np.float32(-np.inf), self.cosines)
        order = np.argsort(-cosines, axis=1, kind="stable")
        return NearestFaces(
            self.queries,
            np.take_along_axis(ids, order, axis=1),
            np.take_along_axis(cosines, order, axis=1),
            self.hidden,
        )

    def only(self, chosen_Q: npt.NDArray[np.bool_]) -> "NearestFaces":
        """Of some of the queries."""
        return NearestFaces(self.queries[chosen_Q], self.ids[chosen_Q], self.cosines[chosen_Q], self.hidden[chosen_Q])
