"""Take faces out of an index and put others in, without training it or coding anew who stays.

An edited index is, byte for byte, what its trained parts make of all its faces in the order of their ids: what is there says
nothing of the way it came, and nothing of who is gone. N faces before, R of them removed, A added, M faces after, D dimensions.

FAISS removes from some of the parts, from no index of lists under face ids, whose row numbers go on counting who is gone, and
from none with finer codes. So codes are taken out of every part here, merged, and put back.
"""

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from store.errors import ArtifactError
from store.index_search import Parts, parts_of
from store.index_train import check_vectors

__all__ = ["edit_index", "misfit_of", "unevenness_of"]

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_PROBED = 4_096  # vectors, whose mean tells as much as that of all


class _Rows:
    """Which row each face had, and which it gets: by rising face id."""

    def __init__(self, ids_N: Ints, gone_R: Ints, ids_A: Ints) -> None:
        self.kept_N = ~np.isin(ids_N, gone_R)
        kept = ids_N[self.kept_N]
        if len(kept) != len(ids_N) - len(gone_R):
            missing = np.setdiff1d(gone_R, ids_N)
            raise ArtifactError(f"face {missing[0] if len(missing) else gone_R[0]} cannot be removed: it is not there")
        self.ids_M = np.sort(np.concatenate([kept, ids_A]))
        if np.any(twice := self.ids_M[1:] == self.ids_M[:-1]):
            raise ArtifactError(f"face {self.ids_M[1:][twice][0]} cannot be added: it is there already")
        self.row_of_kept_N = np.full(len(ids_N), -1, np.int64)
        self.row_of_kept_N[self.kept_N] = np.searchsorted(self.ids_M, kept)
        self.row_of_added_A = np.searchsorted(self.ids_M, ids_A)

    def merged(self, old_NC: Bytes, new_AC: Bytes) -> Bytes:
        """Codes by row, after."""
        codes_MC = np.empty((len(self.ids_M), old_NC.shape[1]), np.uint8)
        codes_MC[self.row_of_kept_N[self.kept_N]] = old_NC[self.kept_N]
        codes_MC[self.row_of_added_A] = new_AC
        return codes_MC


def edit_index(index: Any, *, removed_R: Ints, added_A: Ints, vectors_AD: Floats) -> None:
    """Change an index of any kind in place; it must hold its own bytes, as one from `load_index` does.

    Args:
        index: as opened.
        removed_R: int64, ids of faces that it holds.
        added_A: int64, ids of faces that it does not hold, ascending.
        vectors_AD: float32, unit length, of the added.

    Raises:
        ArtifactError: a face to remove is not there, one to add is, or a vector is none; the message names it. The index is as
            it was then.
    """
    check_vectors(added_A, vectors_AD)
    rows = _Rows(faiss.vector_to_array(index.id_map), removed_R, added_A)
    parts, vectors_AD = parts_of(index), np.ascontiguousarray(vectors_AD)
    turned_AE = vectors_AD if parts.turn is None else parts.turn.apply(vectors_AD)
    if parts.lists is not None:
        _edit_lists(parts.lists, rows, turned_AE)
    elif parts.blind:
        _edit_blocks(_inner(parts), rows, turned_AE)
    else:
        _edit_rows(parts.base, rows, turned_AE)
    if parts.finer is not None:
        _edit_rows(parts.finer, rows, vectors_AD)
    faiss.copy_array_to_vector(rows.ids_M, index.id_map)
    for part in (_inner(parts), parts.base, parts.finer, parts.whole, index):
        if part is not None:
            part.ntotal = len(rows.ids_M)


def unevenness_of(index: Any) -> float | None:
    """How many times as many faces a query looks at as it would if all lists were alike; None where there are no lists."""
    lists = parts_of(index).lists
    return None if lists is None or not lists.ntotal else float(lists.invlists.imbalance_factor())


def misfit_of(index: Any, vectors_ND: Floats) -> float | None:
    """How far vectors lie from what an index was trained on: squared distance to what its shortest codes can say of them, the mean.

    Of lists it is the distance to the list's own centroid, of a scan that to the decoded short code. It rises when faces come that are
    unlike those that were there at training, whose candidates are then found worse. None where nothing was trained.

    Args:
        index: as opened.
        vectors_ND: float32, unit length; some thousands of them are looked at.
    """
    parts: Any = parts_of(index)
    if not len(vectors_ND) or (parts.lists is None and not parts.blind):
        return None
    some_SD = np.ascontiguousarray(vectors_ND[:: -(-len(vectors_ND) // _PROBED)])
    if parts.lists is not None:
        turned_SE = some_SD if parts.turn is None else parts.turn.apply(some_SD)
        nearest = parts.lists.quantizer.search(turned_SE, 1)[1][:, 0]
        off_SE = turned_SE - parts.lists.quantizer.reconstruct_batch(nearest)
        return float(np.mean(np.sum(off_SE * off_SE, axis=1)))
    codes = _inner(parts).pq
    said_SE = codes.decode(codes.compute_codes(parts.turn.apply(some_SD)))
    off_SD = some_SD - parts.turn.reverse_transform(said_SE)
    return float(np.mean(np.sum(off_SD * off_SD, axis=1)))


def _inner(parts: Parts) -> Any:
    """What holds the codes that candidates come from."""
    return parts.base if parts.turn is None else faiss.downcast_index(parts.base.index)


def _edit_rows(part: Any, rows: _Rows, vectors_AE: Floats) -> None:
    """Codes that lie row by row."""
    old_NC = faiss.vector_to_array(part.codes).reshape(-1, part.code_size)
    new_AC = part.sa_encode(vectors_AE) if len(vectors_AE) else np.zeros((0, part.code_size), np.uint8)
    faiss.copy_array_to_vector(rows.merged(old_NC, new_AC).reshape(-1), part.codes)


def _edit_blocks(part: Any, rows: _Rows, vectors_AE: Floats) -> None:
    """Codes of four bits that lie in blocks of some dozens of rows, interleaved as FAISS compares them."""
    packer, total = part.get_CodePacker(), len(rows.ids_M)
    blocks = faiss.vector_to_array(part.codes).reshape(-1, packer.block_size)
    unpacked = np.zeros((len(blocks), packer.nvec * packer.code_size), np.uint8)
    for block, some in zip(blocks, unpacked, strict=True):
        packer.unpack_all(faiss.swig_ptr(block), faiss.swig_ptr(some))
    flat_NC = unpacked.reshape(-1, packer.code_size)
    new_AC = part.pq.compute_codes(vectors_AE) if len(vectors_AE) else flat_NC[:0]
    merged_MC = rows.merged(flat_NC[: part.ntotal], new_AC)
    count = -(-total // packer.nvec)
    padded = np.zeros((count, packer.nvec * packer.code_size), np.uint8)
    padded.reshape(-1)[: merged_MC.size] = merged_MC.reshape(-1)
    blocks = np.zeros((count, packer.block_size), np.uint8)
    for block, some in zip(blocks, padded, strict=True):
        packer.pack_all(faiss.swig_ptr(some), faiss.swig_ptr(block))
    faiss.copy_array_to_AlignedTable(blocks.reshape(-1), part.codes)
    part.ntotal2 = count * packer.nvec


def _edit_lists(lists: Any, rows: _Rows, vectors_AE: Floats) -> None:
    """Codes in lists, each list by rising row; an empty copy of the lists codes who is added, as FAISS codes them."""
    before = [_list_of(lists, number) for number in range(lists.nlist)]
    lists.reset()
    if len(vectors_AE):
        lists.add(vectors_AE)
    added = [_list_of(lists, number) for number in range(lists.nlist)]
    lists.reset()
    for number, ((old_rows, old_codes), (new_rows, new_codes)) in enumerate(zip(before, added, strict=True)):
        kept = rows.kept_N[old_rows]
        row_L = np.concatenate([rows.row_of_kept_N[old_rows[kept]], rows.row_of_added_A[new_rows]])
        code_L = np.concatenate([old_codes[kept], new_codes])
        order = np.argsort(row_L, kind="stable")
        row_L, code_L = row_L[order], np.ascontiguousarray(code_L[order])
        if len(row_L):
            lists.invlists.add_entries(number, len(row_L), faiss.swig_ptr(row_L), faiss.swig_ptr(code_L))


def _list_of(lists: Any, number: int) -> tuple[Ints, Bytes]:
    """Row numbers and codes of one list, copied."""
    held = lists.invlists
    size = held.list_size(number)
    if not size:
        return np.zeros(0, np.int64), np.zeros((0, lists.code_size), np.uint8)
    row_L = faiss.rev_swig_ptr(held.get_ids(number), size).copy()
    code_L = faiss.rev_swig_ptr(held.get_codes(number), size * lists.code_size).copy()
    return row_L, code_L.reshape(size, -1)
