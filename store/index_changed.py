"""An index of two: that of a version before, some of whose faces count no more, and a small one of the faces that came since.

Both were trained alike, so that their cosines can be set side by side. B faces of the base, A added, N that count.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from store.errors import ArtifactError

__all__ = ["ChangedIndex"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChangedIndex:
    """Both parts, opened; asked by `index_search.search` like any other index.

    Attributes:
        base: the index of the version before.
        added: of the faces that came since.
        left: int64, ascending: ids of the base's faces that count no more.

    Raises:
        ArtifactError: a face that is said to have left was never there, or one stands in both; the message names it.
    """

    base: Any
    added: Any
    left: Ints

    def __post_init__(self) -> None:
        """See that the parts fit together."""
        if self.base.d != self.added.d:
            raise ArtifactError(f"an index of {self.base.d} dimensions was changed by one of {self.added.d}")
        if len(strange := self.left[~_holds(self.base_ids, self.left)]):
            raise ArtifactError(f"face {strange[0]} cannot have left the index: it is not there")
        twice_A = _holds(self.base_ids, self.added_ids) & ~_holds(self.left, self.added_ids)
        if twice_A.any():
            raise ArtifactError(f"face {self.added_ids[twice_A][0]} stands in an index and in its changes")

    @property
    def d(self) -> int:
        """Dimensions."""
        return int(self.base.d)

    @property
    def ntotal(self) -> int:
        """Faces that count."""
        return int(self.base.ntotal) - len(self.left) + int(self.added.ntotal)

    @cached_property
    def base_ids(self) -> Ints:
        """Int64 (B,), ascending: face ids of the base, of those too that count no more."""
        return _ascending(faiss.vector_to_array(self.base.id_map))

    @cached_property
    def added_ids(self) -> Ints:
        """Int64 (A,), ascending."""
        return _ascending(faiss.vector_to_array(self.added.id_map))

    @cached_property
    def ids(self) -> Ints:
        """Int64 (N,), ascending: those that count."""
        stays_B = np.ones(len(self.base_ids), np.bool_)
        stays_B[np.searchsorted(self.base_ids, self.left)] = False
        return np.sort(np.concatenate([self.base_ids[stays_B], self.added_ids]), kind="stable")

    def parts_of_mask(self, passes_N: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """A mask of those that count, by rising face id, as one of the base (B,) and one of those added (A,), likewise."""
        chosen = self.ids[passes_N]
        of_base = _holds(chosen, self.base_ids)
        of_base[np.searchsorted(self.base_ids, self.left)] = False
        return of_base, _holds(chosen, self.added_ids)


def _holds(sorted_M: Ints, ids_N: Ints) -> npt.NDArray[np.bool_]:
    """Which ids are among others, which ascend."""
    if not len(sorted_M):
        return np.zeros(len(ids_N), np.bool_)
    holds: npt.NDArray[np.bool_] = sorted_M[np.minimum(np.searchsorted(sorted_M, ids_N), len(sorted_M) - 1)] == ids_N
    return holds


def _ascending(ids_N: Ints) -> Ints:
    return ids_N if np.all(ids_N[1:] > ids_N[:-1]) else np.sort(ids_N)
