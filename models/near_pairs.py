"""Which faces may be among a query's nearest: a matrix product in float32 says so, with room for how wrong it may be.

What it lets through is compared once more, pair by pair, by `pair_cosines`. So who is nearest, and by which cosine, depends neither on
the faces that stand beside, nor on the machine's matrix product, nor on the device that it ran on.

Q queries, B faces, P pairs, D dimensions.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["Screen", "near_pairs", "pair_cosines", "rounding"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

Screen = Callable[[Floats, Floats, Floats, int], tuple[Ints, Ints]]
"""Queries, faces, floors and how many are near, to pairs: as `near_pairs`, here or on another device."""

_UNIT = 2.0**-24  # by which one float32 operation may be off, of its result
_PAIRS = 4_096  # compared at a time
_WHOLE = 2.0**52  # steps from 0 to 1


def rounding(dimension: int) -> float:
    """By how much a float32 product of two unit vectors may be off, in whatever order it is summed.

    References:
        Higham. Accuracy and Stability of Numerical Algorithms. 2nd edition, 2002, section 3.1: n u / (1 - n u) for n terms; here with
        room for lengths off by a thousandth and for the bounds' own rounding.
    """
    terms = (dimension + 8) * _UNIT
    return 1.01 * terms / (1 - terms)


def near_pairs(queries_QD: Floats, faces_BD: Floats, floors_Q: Floats, near: int) -> tuple[Ints, Ints]:
    """Pairs among which are each query's `near` nearest faces, with all that tie, as far as they are no farther than its floor.

    Args:
        queries_QD: float32, unit length.
        faces_BD: float32, unit length, at least one.
        floors_Q: float32, cosines below which no face counts; -inf where every one does.
        near: how many are wanted, at least one.

    Returns:
        Numbers of the query and of the face of each pair, int64 (P,) both, by rising query; not many more than Q times `near` unless
        faces are all alike.
    """
    off, count = rounding(queries_QD.shape[1]), min(near, len(faces_BD))
    cosines_QB = queries_QD @ faces_BD.T
    floors_Q = (floors_Q - off).astype(np.float32)
    passing_QB = cosines_QB >= floors_Q[:, None]
    crowded_Q = np.count_nonzero(passing_QB, axis=1) > count
    if crowded_Q.any():
        last = -count  # of those that count, by rising cosine
        lowest = np.partition(cosines_QB[crowded_Q], last, axis=1)[:, last]
        passing_QB[crowded_Q] &= cosines_QB[crowded_Q] >= (lowest - 2 * off).astype(np.float32)[:, None]
    asked_P, faces_P = np.nonzero(passing_QB)
    return asked_P, faces_P


def pair_cosines(queries_QD: Floats, faces_BD: Floats, asked_P: Ints, faces_P: Ints) -> Floats:
    """The cosine of each pair, float32 (P,), of unit vectors: exact but for D steps of 2^-52, rounded once, whatever other pairs there are.

    Products are exact in float64, and summed as whole numbers, whose sum is the same in any order.
    """
    wide_QD = queries_QD.astype(np.float64) * _WHOLE
    cosines_P = np.empty(len(asked_P), np.float32)
    for start in range(0, len(asked_P), _PAIRS):
        some = slice(start, start + _PAIRS)
        whole_P = (wide_QD[asked_P[some]] * faces_BD[faces_P[some]]).astype(np.int64).sum(axis=1)
        cosines_P[some] = whole_P / _WHOLE
    return cosines_P
