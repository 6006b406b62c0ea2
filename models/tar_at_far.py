"""The true accept rate at a false accept rate, and how sure one can be of it.

M pairs of one person, N pairs of two, B draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["TarAtFar", "tar_at_far", "wilson_interval"]

DRAWS = 10_000
CONFIDENCE = 0.95
_Z = 1.959963984540054  # of a standard normal's middle 95 %


@dataclass(frozen=True)
class TarAtFar:
    """The TAR at one FAR; all but `far` and `reason` are None where the pairs are too few to measure it.

    Attributes:
        far: the FAR asked for.
        tar: the highest share of pairs of one person accepted by any threshold whose measured FAR is at most `far`.
        low: lower end of the 95 % interval.
        high: upper end.
        threshold: pairs that score more than this are accepted.
        false_accepts: how many pairs of two people it accepts; the interval is wide where that is a handful.
        reason: why it is not measured, or None.
    """

    far: float
    tar: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    false_accepts: int | None = None
    reason: str | None = None


def tar_at_far(scores_N: ArrayLike, same_N: ArrayLike, *, fars: Sequence[float], seed: int = 0) -> list[TarAtFar]:
    """The TAR at each FAR, with a 95 % interval.

    The interval is a bootstrap over pairs, those of one person and those of two drawn apart, with the threshold found
    anew in each draw: what is unsure about the threshold is in it. A draw needs no resampled list: the rank, among the N
    known scores, of the threshold of N pairs drawn with replacement is floor(N * Beta(k + 1, N - k)) where k false
    accepts are allowed, and the accepted of M drawn pairs are binomial. As a bootstrap shrinks to a point where every pair
    of one person is accepted, the interval is widened to hold Wilson's for that threshold.

    Pairs are drawn as if they had nothing to do with each other. Where a few people stand in many pairs, the truth is less
    sure than the interval says.

    Args:
        scores_N: floating, (N,), higher for pairs more alike.
        same_N: bool, (N,), whether a pair is one person.
        fars: each in (0, 1).
        seed: of the draws.

    Returns:
        One for each FAR. A FAR below one in the number of pairs of two people is not measured: no threshold could be told
        from one that accepts nothing wrong.

    Raises:
        ValueError: pairs of one kind only, shapes that do not agree, a score that is not a number or a FAR out of range;
            the message says which.
    """
    scores, same = np.asarray(scores_N, np.float64), np.asarray(same_N, bool)
    if scores.ndim != 1 or scores.shape != same.shape or np.isnan(scores).any() or same.all() or not same.any():
        raise ValueError(
            f"pairs: got scores {scores.shape} and same {same.shape}, wanted two (N,) without NaN and with both kinds"
        )
    if wrong := [far for far in fars if not 0 < far < 1]:
        raise ValueError(f"fars: got {wrong[0]}, wanted each above 0 and below 1")
    alike, unlike = np.sort(scores[same]), -np.sort(-scores[~same])
    return [_measure(far, alike, unlike, seed=seed) for far in fars]


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share, sound at 0 and at 1 too.

    References:
        Wilson. Probable Inference, the Law of Succession, and Statistical Inference. JASA 22. 1927.
    """
    share, weight = hits / trials, _Z**2 / trials
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def _measure(far: float, alike_M: NDArray[np.float64], unlike_N: NDArray[np.float64], *, seed: int) -> TarAtFar:
    """One row; `alike_M` rises, `unlike_N` falls."""
    pairs, others = len(alike_M), len(unlike_N)
    allowed = math.floor(far * others + 1e-9)
    if allowed < 1:
        needed = math.ceil(1 / far - 1e-9)
        return TarAtFar(far, reason=f"needs at least {needed:,} pairs of two people, there are {others:,}")
    threshold = unlike_N[allowed]
    accepted = pairs - int(np.searchsorted(alike_M, threshold, side="right"))
    generator = np.random.default_rng(seed)
    ranks_B = np.floor(others * generator.beta(allowed + 1, others - allowed, DRAWS)).astype(np.int64)
    drawn_B = unlike_N[np.minimum(ranks_B, others - 1)]
    shares_B = 1 - np.searchsorted(alike_M, drawn_B, side="right") / pairs
    tars_B = generator.binomial(pairs, shares_B) / pairs
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(tars_B, [tail, 1 - tail])
    floor, ceiling = wilson_interval(accepted, pairs)
    return TarAtFar(
        far,
        tar=accepted / pairs,
        low=min(float(low), floor),
        high=max(float(high), ceiling),
        threshold=float(threshold),
        false_accepts=int((unlike_N > threshold).sum()),
    )
