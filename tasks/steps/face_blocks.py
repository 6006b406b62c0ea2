"""The faces that an index is made of and measured by, block by block: never are all vectors in memory, unless they are few.

N faces in all, B of a block, S of a sample, D dimensions of an embedding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "FaceBlocks", "Gallery", "sample_rows"]

BLOCK = 32_768
"""Faces of a block, about: of 512 dimensions, 64 MiB."""

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

    def take(self, rows_S: Ints) -> Floats:
        """The vectors of some faces, float32 (S, D), by their rows, int64 ascending and unique."""


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

    def take(self, rows_S: Ints) -> Floats:
        """As of FaceBlocks."""
        return self.vectors[rows_S]


def sample_rows(total: int, count: int, *, seed: int) -> Ints:
    """Rows of so many of all faces drawn at random, or of all where there are fewer: int64, ascending."""
    if total <= count:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, size=count, replace=False, shuffle=False))
