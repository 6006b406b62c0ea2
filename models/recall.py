"""How much of the truth a search found.

Q queries, K exact neighbours kept of each.
"""

import numpy as np
import numpy.typing as npt

from models.exact_search import NOBODY, NearestFaces

__all__ = ["recalls"]

_TIE = 1e-5  # of cosines, which a matrix product and FAISS round differently


def recalls(found_QK: npt.NDArray[np.int64], exact: NearestFaces, *, k: int) -> npt.NDArray[np.float64]:
    """Each query's recall@k, in [0, 1]: the share of its k nearest that was found; what ties with the last of them counts.

    No vector is needed. Keep some more than k exact neighbours: of ties that go on beyond those kept, what is found is not counted.

    Args:
        found_QK: int64, the ids that an index found, best first; a negative one stands for nobody.
        exact: the exact neighbours of the same queries, at least k of each where there are so many faces.
        k: how many are asked for; fewer where fewer faces are there.
    """
    k = min(k, int((exact.ids != NOBODY).sum(axis=1).min(initial=k)))
    if not k:
        return np.ones(len(found_QK))
    near_QK = (exact.cosines >= exact.cosines[:, k - 1 : k] - _TIE) & (exact.ids != NOBODY)
    same_QKK = (found_QK[:, :k, None] == exact.ids[:, None, :]) & near_QK[:, None, :]
    shares: npt.NDArray[np.float64] = same_QKK.any(axis=2).sum(axis=1) / k
    return shares
