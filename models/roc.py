"""The receiver operating characteristic of a set of pairs, and what is read off it.

N pairs, T thresholds. FAR, the false accept rate: the share of pairs of two people that are called one. TAR, the true accept
rate: the share of pairs of one person that are called one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["EqualError", "Roc", "roc_curve"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EqualError:
    """Where as many pairs of one person are refused as pairs of two are accepted: `rate` of each, at `threshold`."""

    rate: float
    threshold: float


@dataclass(frozen=True, eq=False)
class Roc:
    """The curve, from nothing accepted (FAR and TAR 0) to everything accepted (both 1).

    Attributes:
        thresholds: float64, falling: infinity, then every distinct score. At each, pairs that score at least so much are
            accepted.
        far: float64, rising, in [0, 1].
        tar: likewise.
    """

    thresholds: Floats
    far: Floats
    tar: Floats

    @property
    def auc(self) -> float:
        """The area below: the chance that a pair of one person scores higher than a pair of two, ties counting a half."""
        return float(np.trapezoid(self.tar, self.far))

    @property
    def equal_error(self) -> EqualError:
        """Where the curve, its points joined by straight lines, has FAR = 1 - TAR."""
        excess = self.far - (1 - self.tar)
        after = int(np.argmax(excess >= 0))
        before = after - 1
        part = -excess[before] / (excess[after] - excess[before])
        upper, lower = self.thresholds[before], self.thresholds[after]
        threshold = lower if np.isinf(upper) else upper + part * (lower - upper)
        return EqualError(float(self.far[before] + part * (self.far[after] - self.far[before])), float(threshold))

    def thinned(self, points: int) -> "Roc":
        """The curve for a picture: without points in the middle of a straight piece, and with at most so many.

        Where corners are more than that, they are chosen at equal lengths along the curve, as it is drawn over a logarithmic
        FAR axis.
        """
        right, up = np.diff(self.far), np.diff(self.tar)
        straight = np.isclose(right[:-1] * up[1:], right[1:] * up[:-1], rtol=0, atol=1e-15)
        kept = np.flatnonzero(np.concatenate([[True], ~straight, [True]]))
        if len(kept) > points:
            along = np.log10(np.maximum(self.far[kept], self.far[self.far > 0].min() / 2))
            steps = np.diff(along, prepend=along[0]) / np.ptp(along) + np.diff(self.tar[kept], prepend=0.0)
            length = np.cumsum(steps)
            wanted = np.searchsorted(length, np.linspace(0, length[-1], points - 2))
            kept = kept[np.unique([0, *wanted, len(kept) - 1])]
        return Roc(self.thresholds[kept], self.far[kept], self.tar[kept])


def roc_curve(scores_N: ArrayLike, same_N: ArrayLike) -> Roc:
    """The curve of a set of pairs; equal scores are one step of it.

    Args:
        scores_N: floating, (N,), higher for pairs more alike.
        same_N: bool, (N,), whether a pair is one person.

    Raises:
        ValueError: shapes that do not agree, a score that is not a number, or pairs of one kind only; the message says which.
    """
    scores, same = np.asarray(scores_N, np.float64), np.asarray(same_N, bool)
    if scores.ndim != 1 or scores.shape != same.shape or np.isnan(scores).any():
        raise ValueError(f"pairs: got scores {scores.shape} and same {same.shape}, wanted two (N,) without NaN")
    if same.all() or not same.any():
        raise ValueError(f"pairs: got {same.sum()} of one person and {(~same).sum()} of two, wanted both kinds")
    order = np.argsort(-scores, kind="stable")
    scores, same = scores[order], same[order]
    ends = np.flatnonzero(np.append(scores[:-1] != scores[1:], True))
    return Roc(np.append(np.inf, scores[ends]), _shares(~same, ends), _shares(same, ends))


def _shares(kind_N: NDArray[np.bool_], ends_T: NDArray[Any]) -> Floats:
    """The share of a kind's pairs that stand at or before each end, with 0 in front."""
    shares: Floats = np.append(0.0, np.cumsum(kind_N)[ends_T] / kind_N.sum())
    return shares
