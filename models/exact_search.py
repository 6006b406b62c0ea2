"""Exact nearest neighbours of some queries, block by block: the truth that an approximate index is measured against.

Q queries, N faces, D dimensions, K nearest a query.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ExactAnswers", "recalls", "search_exactly"]

_BLOCK = 65_536
_TIE = 1e-5  # of cosines, which a matrix product and FAISS round differently


@dataclass(frozen=True)
class ExactAnswers:
    """The K nearest faces of each query, by falling cosine, equal cosines by face id; of those that tie for the last place, some.

    Attributes:
        ids: int64, (Q, K).
        cosines: float32, (Q, K).
    """

    ids: npt.NDArray[np.int64]
    cosines: npt.NDArray[np.float32]


def search_exactly(
    queries_QD: npt.NDArray[np.float32], ids_N: npt.NDArray[np.int64], vectors_ND: npt.NDArray[np.float32], *, k: int
) -> ExactAnswers:
    """Compare every query with every face by a plain matrix product.

    Args:
        queries_QD: float32, unit length.
        ids_N: int64.
        vectors_ND: float32, unit length.
        k: how many are kept of each query; N where there are fewer.
    """
    ids, cosines = np.zeros((len(queries_QD), 0), np.int64), np.zeros((len(queries_QD), 0), np.float32)
    for start in range(0, len(ids_N), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines_QB = queries_QD @ vectors_ND[block].T
        near = min(k, cosines_QB.shape[1])
        best_QK = np.argpartition(-cosines_QB, near - 1, axis=1)[:, :near]
        ids = np.concatenate([ids, ids_N[block][best_QK]], axis=1)
        cosines = np.concatenate([cosines, np.take_along_axis(cosines_QB, best_QK, axis=1)], axis=1)
        order = np.lexsort((ids, -cosines), axis=1)[:, :k]
        ids, cosines = np.take_along_axis(ids, order, axis=1), np.take_along_axis(cosines, order, axis=1)
    return ExactAnswers(ids, cosines)


def recalls(
    found_QK: npt.NDArray[np.int64],
    exact: ExactAnswers,
    queries_QD: npt.NDArray[np.float32],
    ids_N: npt.NDArray[np.int64],
    vectors_ND: npt.NDArray[np.float32],
    *,
    k: int,
) -> npt.NDArray[np.float64]:
    """Each query's recall@k, in [0, 1]: the share of its k nearest that was found; what ties with the last of them counts.

    Args:
        found_QK: int64, the ids that an index found, best first; a negative one stands for nobody.
        exact: the answers to the same queries.
        queries_QD: float32, unit length.
        ids_N: int64, ascending, of all faces that may be found.
        vectors_ND: float32, unit length.
        k: at most as many as `exact` has.
    """
    k = min(k, exact.ids.shape[1])
    found_QK = found_QK[:, :k]
    at_QK = np.minimum(np.searchsorted(ids_N, found_QK), len(ids_N) - 1)
    there_QK = ids_N[at_QK] == found_QK
    cosines_QK = np.einsum("qd,qkd->qk", queries_QD, vectors_ND[at_QK], optimize=True)
    hits_QK = there_QK & (cosines_QK >= exact.cosines[:, k - 1 : k] - _TIE)
    shares: npt.NDArray[np.float64] = hits_QK.sum(axis=1) / k
    return shares
