"""Verification by folds: are two faces one person, with a threshold that never saw the pairs it is tested on?

N pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from models.metrics import best_threshold

__all__ = ["CrossValidation", "Fold", "cross_validate"]


@dataclass(frozen=True)
class Fold:
    """One fold's test.

    Attributes:
        fold: its number, as it was given.
        pairs: tested in it.
        threshold: the best one on all other folds; infinite where those are best called all alike or all unlike.
        accuracy: share of the fold's pairs that are told rightly by it, in [0, 1].
    """

    fold: int
    pairs: int
    threshold: float
    accuracy: float


@dataclass(frozen=True)
class CrossValidation:
    """The folds' tests together; folds weigh the same however many pairs they have."""

    folds: tuple[Fold, ...]

    @property
    def mean(self) -> float:
        """The mean of the folds' accuracies."""
        return float(np.mean([fold.accuracy for fold in self.folds]))

    @property
    def std(self) -> float:
        """Their standard deviation with n - 1 below the line (ddof 1): the folds are a sample of those there could be."""
        return float(np.std([fold.accuracy for fold in self.folds], ddof=1))

    @property
    def standard_error(self) -> float:
        """The deviation over the root of the number of folds, the ± of LFW's tables."""
        return self.std / float(np.sqrt(len(self.folds)))


def cross_validate(scores_N: ArrayLike, same_N: ArrayLike, folds_N: ArrayLike) -> CrossValidation:
    """How often pairs are told rightly when each fold is tested with the threshold that is best on all others.

    Args:
        scores_N: floating, (N,), higher for pairs more alike, such as cosines.
        same_N: bool, (N,), whether a pair is one person.
        folds_N: integer, (N,), the fold of each pair.

    Raises:
        ValueError: shapes that do not agree, a score that is not a number, or fewer than two folds; the message says which.

    References:
        Huang, Ramesh, Berg, Learned-Miller. Labeled Faces in the Wild. UMass Amherst Technical Report 07-49. 2007. View 2.
    """
    scores, same, folds = np.asarray(scores_N, np.float64), np.asarray(same_N, bool), np.asarray(folds_N)
    numbers = np.unique(folds)
    if folds.shape != scores.shape or len(numbers) < 2:
        raise ValueError(
            f"folds: got scores {scores.shape}, folds {folds.shape} and {len(numbers)} folds, wanted two (N,) and two folds"
        )
    tested = []
    for number in numbers:
        inside = folds == number
        threshold = best_threshold(scores[~inside], same[~inside]).threshold
        right = (scores[inside] >= threshold) == same[inside]
        tested.append(Fold(int(number), int(inside.sum()), threshold, float(right.mean())))
    return CrossValidation(tuple(tested))
