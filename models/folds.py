"""Pairs cut into folds, where their file does not say how."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["stratified_folds"]


def stratified_folds(same_N: ArrayLike, *, folds: int = 10, seed: int = 0) -> NDArray[np.int64]:
    """The fold of each pair, so that every fold has its share of pairs of one person and of two.

    The pairs of a kind are shuffled and dealt out in turn, so folds differ by at most one pair of a kind and one in all.
    People are not kept apart: somebody may be met in several folds, unlike in LFW's View 2. All that is learned from the
    other folds is one threshold.

    Args:
        same_N: bool, (N,), whether a pair is one person.
        folds: how many, at least 2.
        seed: the same seed and pairs give the same folds.

    Returns:
        int64, (N,), from 0 to `folds` - 1.

    Raises:
        ValueError: fewer than two folds, or a kind has fewer pairs than there are folds; the message says what was got.
    """
    same = np.asarray(same_N, bool)
    alike, unlike = np.flatnonzero(same), np.flatnonzero(~same)
    if folds < 2 or min(len(alike), len(unlike)) < folds:
        raise ValueError(
            f"folds: got {len(alike)} pairs of one person and {len(unlike)} of two for {folds} folds, "
            "wanted at least two folds, and as many pairs of each kind as folds"
        )
    generator = np.random.default_rng(seed)
    dealt = np.concatenate([generator.permutation(alike), generator.permutation(unlike)])
    fold_N = np.empty(len(same), np.int64)
    fold_N[dealt] = np.arange(len(same)) % folds
    return fold_N
