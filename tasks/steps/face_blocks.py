"""The faces that an index is made of and measured by, block by block: never are all vectors in memory, unless they are few.

N faces in all, B of a block, D dimensions of an embedding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "FaceBlocks", "Gallery", "sample_rows", "take"]

BLOCK = 65_536
"""Faces of a block, about: of 512 dimensions, 128 MiB."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class FaceBlocks(Protocol):
    """Faces by rising id, whose vectors can be read from the start as often as need be."""

    @property
    def ids(self) -> Ints:
        """Face ids, int64 (N,), ascending; a face's place among them is its row."""

    @property
    def dimension(self) -> int:
        """D."""

    def blocks(self) -> Iterator[tuple[Ints, Floats]]:
        """Rows, int64 (B,), and unit vectors, float32 (B, D): each face once, in whatever order, the same every time."""


@dataclass(frozen=True)
class Gallery:
    """Few faces, held in memory: ids, int64 (N,), ascending; vectors, float32 (N, D), unit length."""

    ids: Ints
    vectors: Floats

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.vectors.shape[1])

    def blocks(self) -> Iterator[tuple[Ints, Floats]]:
        """As of FaceBlocks, by rising row."""
        for start in range(0, len(self.ids), BLOCK):
            stop = min(start + BLOCK, len(self.ids))
            yield np.arange(start, stop), self.vectors[start:stop]


def take(faces: FaceBlocks, rows_S: Ints) -> Floats:
    """The vectors of some faces, float32 (S, D), in one pass over all.

    Args:
        faces: all of them.
        rows_S: int64, ascending and unique.
    """
    if isinstance(faces, Gallery):
        return faces.vectors[rows_S]
    vectors_SD = np.zeros((len(rows_S), faces.dimension), np.float32)
    if not len(rows_S):
        return vectors_SD
    for rows_B, vectors_BD in faces.blocks():
        at_B = np.minimum(np.searchsorted(rows_S, rows_B), len(rows_S) - 1)
        mine_B = rows_S[at_B] == rows_B
        vectors_SD[at_B[mine_B]] = vectors_BD[mine_B]
    return vectors_SD


def sample_rows(faces: FaceBlocks, count: int, *, seed: int) -> Ints:
    """Rows of so many faces drawn at random, or of all where there are fewer: int64, ascending."""
    total = len(faces.ids)
    if total <= count:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, size=count, replace=False, shuffle=False))
