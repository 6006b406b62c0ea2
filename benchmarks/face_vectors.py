"""Vectors drawn like face embeddings: people of power-law sizes, each a cluster, spread as real embeddings are.

A person's centre is a Gaussian whose variances fall along the axes as (i + offset)^-decay; a photo of theirs is the centre plus a
Gaussian of its own, whose variances fall more slowly, times how unlike the photo is (log-normal: most photos are close to the
person's others, some are not). Then unit length. Numbers of photos a person follow a power law: most have one, few have dozens.

The figures in `LIKE_LFW` were fitted to MobileFaceNet's embeddings of LFW's View 1: cosines within a person and between people, the
cosine of the first and the tenth stranger, the share of the variance in the first axes, and how much of an index of lists must be
looked into. In more dimensions the tail of the variances goes on.

A block of people is a function of (seed, number) alone, so any process makes any of them, and nothing is kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LIKE_LFW", "FaceSpread", "FaceVectors"]

BLOCK = 16_384


@dataclass(frozen=True)
class FaceSpread:
    """How embeddings lie.

    Attributes:
        decay: of the centres' variances.
        offset: axes after which they begin to fall.
        photo_decay: of a photo's own variances.
        unlike: median length of a photo's own part, of the centre's.
        unlike_spread: standard deviation of its logarithm.
        size_power: the number of photos of a person is 1 / u^size_power, u uniform.
        most: photos of one person at most.
    """

    decay: float
    offset: float
    photo_decay: float
    unlike: float
    unlike_spread: float
    size_power: float
    most: int


LIKE_LFW = FaceSpread(
    decay=1.3, offset=30.0, photo_decay=0.7, unlike=0.66, unlike_spread=0.35, size_power=0.5, most=600
)


@dataclass(frozen=True)
class FaceVectors:
    """So many drawn embeddings.

    Attributes:
        count: how many.
        dimension: of each.
        seed: other seeds, other people.
        spread: how they lie.
    """

    count: int
    dimension: int = 512
    seed: int = 0
    spread: FaceSpread = LIKE_LFW

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.count // BLOCK)

    def block(self, number: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Ids, int64 ascending (B,), and unit vectors, float32 (B, D), of one block; the people of two blocks are others."""
        size = min(BLOCK, self.count - number * BLOCK)
        rng = np.random.default_rng([self.seed, 1, number])
        people_B, centres_PD = self._people(number)
        vectors_BD = self._photos(rng, people_B, centres_PD)[:size]
        return np.arange(number * BLOCK, number * BLOCK + size, dtype=np.int64), vectors_BD

    def stream(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """All blocks in turn."""
        return (self.block(number) for number in range(self.blocks))

    def queries(self, count: int) -> npt.NDArray[np.float32]:
        """Unit vectors, float32 (Q, D), of other photos of people that are among the vectors; none is one of them."""
        rng = np.random.default_rng([self.seed, 2])
        numbers = rng.choice(self.blocks, size=min(self.blocks, 16), replace=False)
        parts = []
        for number, share in zip(numbers, np.array_split(np.arange(count), len(numbers)), strict=True):
            people_B, centres_PD = self._people(int(number))
            there = people_B[: min(BLOCK, self.count - int(number) * BLOCK)]
            parts.append(self._photos(rng, rng.choice(there, size=len(share)), centres_PD))
        return np.concatenate(parts)

    def _people(self, number: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The person of each photo of a whole block, int64 (B,), and the people's centres, float32 (P, D)."""
        rng = np.random.default_rng([self.seed, 0, number])
        wanted = (1.0 - rng.random(BLOCK)) ** -self.spread.size_power
        sizes = np.minimum(wanted.astype(np.int64), self.spread.most)
        people_B = np.repeat(np.arange(BLOCK), sizes)[:BLOCK]
        variances_D = (np.arange(self.dimension) + self.spread.offset) ** -self.spread.decay
        centres = rng.standard_normal((int(people_B[-1]) + 1, self.dimension), dtype=np.float32)
        centres *= np.sqrt(variances_D / variances_D.sum()).astype(np.float32)
        return people_B, centres

    def _photos(
        self, rng: np.random.Generator, people_B: npt.NDArray[np.int64], centres_PD: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        variances_D = (np.arange(self.dimension) + self.spread.offset) ** -self.spread.photo_decay
        own = rng.standard_normal((len(people_B), self.dimension), dtype=np.float32)
        own *= np.sqrt(variances_D / variances_D.sum()).astype(np.float32)
        unlike = self.spread.unlike * np.exp(self.spread.unlike_spread * rng.standard_normal(len(people_B)))
        vectors = centres_PD[people_B] + unlike.astype(np.float32)[:, None] * own
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors
