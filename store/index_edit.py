"""Take faces out of an index and put others in, without training it or coding anew who stays.

An edited index is, byte for byte, what its trained parts make of all its faces in the order of their ids: what is there says
nothing of the way it came, and nothing of who is gone. N faces before, R of them removed, A added, M faces after, D dimensions.

FAISS removes from some of the parts, from no index of lists under face ids, whose row numbers go on counting who is gone, and
from none with finer codes. So the codes of who stays are read out of the old file, and merged with new ones into another file: row by
row, or of lists as a build merges those of its blocks. Neither file is ever in memory.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from store.errors import ArtifactError
from store.index_changed import ChangedIndex
from store.index_pack import unpack_codes
from store.index_search import Parts, parts_of
from store.index_stream import CodedFaces, Spool, WrittenIndex, code_faces, rows_a_stretch, write_rows
from store.index_train import check_vectors
from store.index_trial import open_mapped

__all__ = ["edit_index", "emptied", "misfit_of", "unevenness_of"]

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_BLOCK = 65_536
_STRETCH_BYTES = 4 * 2**20  # that stay in the processor's caches on their way
_TOGETHER = 32  # faces that a scan keeps together
_PROBED = 4_096  # vectors, whose mean tells as much as that of all


class _Rows:
    """Which row each face had, and which it gets: by rising face id."""

    def __init__(self, ids_N: Ints, gone_R: Ints, ids_A: Ints) -> None:
        kept_N = ~np.isin(ids_N, gone_R)
        kept = ids_N[kept_N]
        if len(kept) != len(ids_N) - len(gone_R):
            missing = np.setdiff1d(gone_R, ids_N)
            raise ArtifactError(f"face {missing[0] if len(missing) else gone_R[0]} cannot be removed: it is not there")
        self.ids_M = np.sort(np.concatenate([kept, ids_A]))
        if np.any(twice := self.ids_M[1:] == self.ids_M[:-1]):
            raise ArtifactError(f"face {self.ids_M[1:][twice][0]} cannot be added: it is there already")
        self.of_before_N = np.full(len(ids_N), -1, np.int64)
        self.of_before_N[kept_N] = np.searchsorted(self.ids_M, kept)
        self.of_added_A = np.searchsorted(self.ids_M, ids_A)

    def staying(self, coded: CodedFaces) -> CodedFaces:
        """Those of some faces before who stay, under the rows they get, which ascend."""
        rows_B = self.of_before_N[coded.rows]
        order = np.argsort(rows_B, kind="stable")
        order = order[rows_B[order] >= 0]
        return CodedFaces(rows_B[order], coded.lists[order], coded.codes[order], coded.finer[order])

    def stretches(self, of_before: Callable[[Ints], Bytes], added_AC: Bytes | None, step: int) -> Iterator[Bytes]:
        """Codes by the rows they get, so many rows at a time: of who stays as they were, of who is added as given."""
        stay = np.flatnonzero(self.of_before_N >= 0)
        places = self.of_before_N[stay]  # ascending, as the rows before do
        for first in range(0, len(self.ids_M), step):
            last = min(first + step, len(self.ids_M))
            kept = slice(*np.searchsorted(places, [first, last]))
            came = slice(*np.searchsorted(self.of_added_A, [first, last]))
            old = of_before(stay[kept])
            width = old.shape[1] if added_AC is None else added_AC.shape[1]
            out = np.empty((last - first, width), np.uint8)
            out[places[kept] - first] = old
            if added_AC is not None:
                out[self.of_added_A[came] - first] = added_AC[came]
            yield out


def edit_index(source: Path, target: Path, *, removed_R: Ints, added_A: Ints, vectors_AD: Floats) -> WrittenIndex:
    """Write a changed copy of an index file of any kind, flushed.

    Args:
        source: the index file; its hash has been checked.
        target: the new one; beside it there are three spooled files, where it has lists, until it is whole.
        removed_R: int64, ids of faces that it holds.
        added_A: int64, ids of faces that it does not hold, ascending.
        vectors_AD: float32, unit length, of the added.

    Raises:
        ArtifactError: a face to remove is not there, one to add is, or a vector is none; the message names it. There is no
            new file then.
        ValueError: FAISS refuses the file.
    """
    check_vectors(added_A, vectors_AD)
    index = open_mapped(str(source))
    rows = _Rows(faiss.vector_to_array(index.id_map), removed_R, added_A)
    trained = emptied(open_mapped(str(source)))
    if parts_of(index).lists is None:
        return _edit_rows(index, trained, rows, target, vectors_AD)
    with Spool(trained, rows.ids_M, target.parent) as spool:
        for coded in _coded_in_lists(parts_of(index)):
            spool.append(rows.staying(coded))
        for start in range(0, len(added_A), _BLOCK):
            spool.add(rows.of_added_A[start : start + _BLOCK], vectors_AD[start : start + _BLOCK])
        return spool.write(target)


def _edit_rows(index: Any, trained: Any, rows: _Rows, target: Path, vectors_AD: Floats) -> WrittenIndex:
    """Of an index without lists: who stays keeps his order, so that codes are read and written row by row, with nothing in between."""
    parts, total = parts_of(index), int(index.ntotal)
    added = [
        code_faces(trained, rows.of_added_A[start : start + _BLOCK], vectors_AD[start : start + _BLOCK])
        for start in range(0, len(vectors_AD), _BLOCK)
    ]
    new = {
        what: np.concatenate([getattr(one, what) for one in added]) if added else None for what in ("codes", "finer")
    }

    def codes_of(old_R: Ints) -> Bytes:
        return _unpacked(parts.inner, old_R) if parts.blind else _taken(_by_row(parts.inner, total), old_R)

    def finer_of(old_R: Ints) -> Bytes:
        return _taken(_by_row(parts.finer, total), old_R)

    step = rows_a_stretch(trained, most_bytes=_STRETCH_BYTES)
    return write_rows(
        target,
        trained,
        rows.ids_M,
        codes=rows.stretches(codes_of, new["codes"], step),
        finer=rows.stretches(finer_of, new["finer"], step),
    )


def emptied(index: Any) -> Any:
    """What an index was trained to: itself without faces and ids; the index given is used up.

    Args:
        index: as opened, mapped or not.
    """
    parts = parts_of(index)
    inner = parts.inner
    if parts.lists is not None:
        nothing = faiss.ArrayInvertedLists(inner.nlist, inner.code_size)
        nothing.this.disown()
        inner.replace_invlists(nothing, True)
    elif parts.blind:
        inner.reset()
        inner.ntotal2 = 0
    else:
        inner.codes = faiss.MaybeOwnedVectorUInt8()
    if parts.finer is not None:
        parts.finer.codes = faiss.MaybeOwnedVectorUInt8()
    for part in (inner, parts.base, parts.finer, parts.whole):
        if part is not None:
            part.ntotal = 0
    return faiss.clone_index(parts.whole)  # which owns itself


def unevenness_of(index: Any) -> float | None:
    """How many times as many faces a query looks at as it would if all lists were alike; None where there are no lists.

    Of a changed index those of its base that count no more are looked at too.
    """
    if not isinstance(index, ChangedIndex):
        lists = parts_of(index).lists
        return None if lists is None or not lists.ntotal else float(lists.invlists.imbalance_factor())
    sizes = [_list_sizes(parts_of(one).lists) for one in (index.base, index.added)]
    if sizes[0] is None or sizes[1] is None:
        return None
    sizes_L = sizes[0] + sizes[1]
    return float(len(sizes_L) * np.sum(sizes_L**2) / max(1.0, np.sum(sizes_L)) ** 2)


def _list_sizes(lists: Any) -> npt.NDArray[np.float64] | None:
    return None if lists is None else np.array([lists.invlists.list_size(n) for n in range(lists.nlist)], np.float64)


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
    codes = parts.inner.pq
    said_SE = codes.decode(codes.compute_codes(parts.turn.apply(some_SD)))
    off_SD = some_SD - parts.turn.reverse_transform(said_SE)
    return float(np.mean(np.sum(off_SD * off_SD, axis=1)))


def _by_row(part: Any, total: int) -> Bytes:
    """Codes that lie row by row, as they lie."""
    size = int(part.code_size)
    codes: Bytes = faiss.rev_swig_ptr(part.codes.data(), total * size) if total else np.zeros(0, np.uint8)
    return codes.reshape(total, size)


def _taken(codes_NC: Bytes, rows_R: Ints) -> Bytes:
    """Codes of some rows, which ascend; not copied where none between them is left out."""
    if len(rows_R) and rows_R[-1] - rows_R[0] + 1 == len(rows_R):
        return codes_NC[rows_R[0] : rows_R[-1] + 1]
    return codes_NC[rows_R]


def _unpacked(part: Any, rows_R: Ints) -> Bytes:
    """Codes of four bits of some rows, which ascend; they lie in blocks of 32."""
    pairs = -(-int(part.M) // 2)
    if not len(rows_R):
        return np.zeros((0, pairs), np.uint8)
    first, last = int(rows_R[0]) // _TOGETHER, int(rows_R[-1]) // _TOGETHER + 1
    blocks = faiss.rev_swig_ptr(part.codes.get(), int(part.codes.size())).reshape(-1, _TOGETHER * pairs)
    return unpack_codes(blocks[first:last], subquantizers=int(part.M))[rows_R - first * _TOGETHER]


def _coded_in_lists(parts: Parts) -> Iterator[CodedFaces]:
    """Everybody in the lists of an index, some lists at a time, each of whose faces come together."""
    lists: Any = parts.lists
    finer_NF = np.zeros((lists.ntotal, 0), np.uint8) if parts.finer is None else _by_row(parts.finer, int(lists.ntotal))
    held: list[tuple[Ints, Ints, Bytes]] = []
    for number in range(int(lists.nlist)):
        held.append(_list_of(lists, number))
        if number == lists.nlist - 1 or sum(len(rows) for rows, *_ in held) >= _BLOCK:
            rows, numbers, codes = (np.concatenate(parts) for parts in zip(*held, strict=True))
            yield CodedFaces(rows, numbers, codes, finer_NF[rows])
            held = []


def _list_of(lists: Any, number: int) -> tuple[Ints, Ints, Bytes]:
    """Row numbers, the list's number for each, and codes of one list, as they lie."""
    size, width = lists.invlists.list_size(number), int(lists.code_size)
    if not size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, width), np.uint8)
    rows = faiss.rev_swig_ptr(lists.invlists.get_ids(number), size)
    codes = faiss.rev_swig_ptr(lists.invlists.get_codes(number), size * width).reshape(size, width)
    return rows, np.full(size, number, np.int64), codes
