"""Exact nearest neighbours of some queries, kept up to date block by block: the truth that an approximate index is measured against.

A cosine here is the pair's own, to the last bit of a float32: see `near_pairs`. Q queries, B faces of a block, P pairs, D dimensions, K kept
a query.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from models.near_pairs import Screen, near_pairs, pair_cosines

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

    def added(
        self, ids_B: npt.NDArray[np.int64], faces_BD: npt.NDArray[np.float32], *, screen: Screen = near_pairs
    ) -> "NearestFaces":
        """With a block of faces more.

        Args:
            ids_B: int64, none of them added before.
            faces_BD: float32, unit length.
            screen: finds the pairs that are worth a comparison; wherever it computes, the result is the same to the last bit.
        """
        if not len(ids_B) or not len(self.queries):
            return self
        floors_Q = np.minimum(self.cosines[:, -1], self.hidden)  # who is farther changes nothing
        asked_P, faces_P = screen(self.queries, faces_BD, floors_Q, self.ids.shape[1] + 1)
        return self._with(asked_P, ids_B[faces_P], pair_cosines(self.queries, faces_BD, asked_P, faces_P))

    def merged(self, other: "NearestFaces") -> "NearestFaces":
        """Of the same queries, among these faces and others that were searched elsewhere: what one search of all of them finds.

        Args:
            other: as deep; no face is among both.
        """
        if not len(self.queries):
            return self
        asked_P = np.repeat(np.arange(len(self.queries)), other.ids.shape[1])
        merged = self._with(asked_P, other.ids.ravel(), other.cosines.ravel())
        return replace(merged, hidden=np.maximum(merged.hidden, other.hidden))

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

    def _with(
        self, asked_P: npt.NDArray[np.int64], ids_P: npt.NDArray[np.int64], cosines_P: npt.NDArray[np.float32]
    ) -> "NearestFaces":
        """With some faces more of some queries."""
        count, depth = self.ids.shape
        asked = np.concatenate([np.repeat(np.arange(count), depth), asked_P])
        ids, cosines = np.concatenate([self.ids.ravel(), ids_P]), np.concatenate([self.cosines.ravel(), cosines_P])
        order = np.lexsort((ids, -cosines, asked))
        asked = asked[order]
        places = np.arange(len(order)) - np.searchsorted(asked, np.arange(count))[asked]
        kept, first_out = order[places < depth], places == depth
        hidden = self.hidden.copy()
        hidden[asked[first_out]] = np.maximum(hidden[asked[first_out]], cosines[order[first_out]])
        return NearestFaces(self.queries, ids[kept].reshape(count, depth), cosines[kept].reshape(count, depth), hidden)
