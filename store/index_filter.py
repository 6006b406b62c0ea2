"""Who may be answered with: filters that go with a search into an index, made once for any number of searches of it.

N faces of an index, by their rows or by rising face id.
"""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from store.index_changed import ChangedIndex

__all__ = ["Allowed", "AllowedOfBoth", "Filter", "allow", "allow_rows", "ids_by_row", "leave_out"]


@dataclass(frozen=True)
class Allowed:
    """The faces of one index that may be answered with; made by `allow` and its like, good for any number of searches of that index.

    Attributes:
        bits: uint8, a bit a row, lowest first.
        count: how many are set.
    """

    bits: npt.NDArray[np.uint8]
    count: int


@dataclass(frozen=True)
class AllowedOfBoth:
    """The faces of a changed index that may be answered with: of its base and of those added."""

    base: Allowed
    added: Allowed

    @property
    def count(self) -> int:
        """How many there are."""
        return self.base.count + self.added.count


Filter = Allowed | AllowedOfBoth
"""Who may be answered with, of whichever index."""


def allow(
    index: Any, face_ids: npt.NDArray[np.int64] | None = None, *, without: npt.NDArray[np.int64] | None = None
) -> Filter:
    """A filter that lets only these faces through; ids that the index does not hold are passed over.

    Args:
        index: as opened.
        face_ids: int64, in any order; None lets all through.
        without: int64, in any order: of them who may not be found.
    """
    ids_N = index.ids if isinstance(index, ChangedIndex) else ids_by_row(index)
    mask_N = np.full(len(ids_N), face_ids is None, np.bool_)
    order = _order(ids_N)
    for chosen, found in ((face_ids, True), (without, False)):
        if chosen is not None and len(chosen) and len(ids_N):
            mask_N[_rows(ids_N, order, chosen)] = found
    return allow_rows(index, mask_N) if isinstance(index, ChangedIndex) else _allowed(mask_N)


def allow_rows(index: Any, passes_N: npt.NDArray[np.bool_]) -> Filter:
    """A filter that lets through whom a mask says, which goes by rising face id."""
    if isinstance(index, ChangedIndex):
        of_base, of_added = index.parts_of_mask(passes_N)
        return AllowedOfBoth(_rows_allowed(index.base, of_base), _rows_allowed(index.added, of_added))
    return _rows_allowed(index, passes_N)


def _rows_allowed(index: Any, passes_N: npt.NDArray[np.bool_]) -> Allowed:
    ids_N = ids_by_row(index)
    if (order := _order(ids_N)) is None:
        return _allowed(passes_N)
    mask_N = np.zeros(len(ids_N), np.bool_)
    mask_N[order] = passes_N
    return _allowed(mask_N)


def leave_out(index: Any, allowed: Filter | None, face_ids: npt.NDArray[np.int64]) -> Filter:
    """A filter without some of those whom another lets through; None lets all through."""
    if allowed is None:
        return allow(index, without=face_ids)
    if isinstance(allowed, AllowedOfBoth):
        parts = ((index.base, allowed.base), (index.added, allowed.added))
        return AllowedOfBoth(*(_left_out(part, of_part, face_ids) for part, of_part in parts))
    return _left_out(index, allowed, face_ids)


def _left_out(index: Any, allowed: Allowed, face_ids: npt.NDArray[np.int64]) -> Allowed:
    ids_N = ids_by_row(index)
    rows = np.unique(_rows(ids_N, _order(ids_N), face_ids)) if len(ids_N) else np.zeros(0, np.int64)
    bits, bit = allowed.bits.copy(), np.left_shift(1, rows & 7).astype(np.uint8)
    there = int(np.count_nonzero(bits[rows >> 3] & bit))
    np.bitwise_and.at(bits, rows >> 3, ~bit)
    return Allowed(bits=bits, count=allowed.count - there)


def _allowed(mask_N: npt.NDArray[np.bool_]) -> Allowed:
    return Allowed(bits=np.packbits(mask_N, bitorder="little"), count=int(np.count_nonzero(mask_N)))


def _order(ids_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """What sorts the ids; None where they ascend, as they do in every index that a build has written."""
    return None if np.all(ids_N[1:] > ids_N[:-1]) else np.argsort(ids_N, kind="stable")


def _rows(
    ids_N: npt.NDArray[np.int64], order: npt.NDArray[np.int64] | None, wanted_M: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Row numbers of those ids that are there; `order` sorts the ids where they do not ascend."""
    sorted_N = ids_N if order is None else ids_N[order]
    at_M = np.minimum(np.searchsorted(sorted_N, wanted_M), len(ids_N) - 1)
    at_M = at_M[sorted_N[at_M] == wanted_M]
    rows: npt.NDArray[np.int64] = at_M if order is None else order[at_M]
    return rows


def ids_by_row(index: Any) -> npt.NDArray[np.int64]:
    """Face ids by row, as they lie in the index."""
    total = int(index.ntotal)
    ids_N: npt.NDArray[np.int64] = faiss.rev_swig_ptr(index.id_map.data(), total) if total else np.zeros(0, np.int64)
    return ids_N
