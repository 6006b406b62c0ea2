"""A filter in a scan by short codes, which are compared in blocks and know of none.

Candidates come in the order of their short codes; those that are not allowed are passed over, until as many are left as a search
without a filter compares again. So nobody who is kept out takes anybody's place, and a filtered answer is as right as any other.
Q queries of D dimensions, C candidates, K answers.
"""

import math
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from store.cores import one_core

__all__ = ["pays", "scan_allowed"]

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_LEAST_SHARE = 0.05  # of fewer of the faces, all that are allowed are sooner compared by their finer codes
_TIMES_COMPARED = 4  # as many as are compared again anyway; of fewer allowed ones likewise
_TOGETHER = 64  # queries, whose candidates are in memory at once
_MORE = 1.25  # times as many candidates as are expected to do


def pays(there: int, total: int, compared: int) -> bool:
    """Whether so many allowed faces of all are more quickly found by short codes first than by comparing each of them.

    Args:
        there: how many are allowed.
        total: of so many.
        compared: candidates of a query that are compared again.
    """
    return there >= max(_LEAST_SHARE * total, _TIMES_COMPARED * compared)


def scan_allowed(
    base: Any, finer: Any, queries_QD: Floats, *, k: int, compared: int, bits: npt.NDArray[np.uint8], there: int
) -> tuple[Floats, Rows]:
    """The k nearest allowed faces of each query.

    Args:
        base: gives candidates by short codes.
        finer: codes of the same rows.
        queries_QD: float32, unit length.
        k: how many.
        compared: allowed candidates of a query that are compared again by their finer codes.
        bits: uint8, a bit a row, lowest first: who is allowed.
        there: how many are.

    Returns:
        cosines (Q, K) float32 falling, row numbers (Q, K) int64; -1 where there are fewer.
    """
    parts = [
        _some(base, finer, queries_QD[start : start + _TOGETHER], k, min(compared, there), bits, there)
        for start in range(0, len(queries_QD), _TOGETHER)
    ]
    cosines, rows = zip(*parts, strict=True)
    return np.concatenate(cosines), np.concatenate(rows)


def _some(
    base: Any, finer: Any, queries_QD: Floats, k: int, compared: int, bits: npt.NDArray[np.uint8], there: int
) -> tuple[Floats, Rows]:
    total = int(base.ntotal)
    asked = min(total, math.ceil(_MORE * compared * total / there))
    rows_QC = base.search(queries_QD, asked)[1]
    allowed_QC = _allowed(rows_QC, bits)
    short_Q = allowed_QC.sum(axis=1) < compared
    cosines_QK, rows_QK = (
        np.full((len(queries_QD), k), -np.inf, np.float32),
        np.full((len(queries_QD), k), -1, np.int64),
    )
    with one_core():  # a query's candidates are too few to share
        for n in np.flatnonzero(~short_Q):
            best = rows_QC[n, allowed_QC[n]][:compared]
            cosines = _cosines(finer, best, queries_QD[n])
            order = np.lexsort((best, -cosines))[:k]
            cosines_QK[n, : len(order)], rows_QK[n, : len(order)] = cosines[order], best[order]
    if short_Q.any():  # the filter keeps out just those who are near: all that are allowed are compared
        exact = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        cosines_QK[short_Q], rows_QK[short_Q] = finer.search(queries_QD[short_Q], k, params=exact)
    return cosines_QK, rows_QK


def _allowed(rows_QC: Rows, bits: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    there = np.maximum(rows_QC, 0)
    allowed: npt.NDArray[np.bool_] = ((bits[there >> 3] >> (there & 7).astype(np.uint8)) & 1).astype(np.bool_)
    return allowed & (rows_QC >= 0)


def _cosines(finer: Any, rows_C: Rows, query_D: Floats) -> Floats:
    """By the finer codes of some rows."""
    size = int(finer.code_size)
    codes = faiss.rev_swig_ptr(finer.codes.data(), int(finer.ntotal) * size).reshape(-1, size)[rows_C]
    cosines: Floats = finer.sa_decode(codes) @ query_D
    return cosines
