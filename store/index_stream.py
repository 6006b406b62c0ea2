"""Fill an index on disk: blocks of faces are coded and spooled, then merged into one file, stretch by stretch.

No more than a block of faces, and one stretch of the file, is in memory at a time, however many faces there are; what grows with
them is their ids, 8 bytes a face. The file is byte for byte what FAISS writes of the same index filled in memory, of any kind in
`index_choice.KINDS`.

B faces of a block, D dimensions.
"""

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, BinaryIO, Self

import faiss
import numpy as np
import numpy.typing as npt

from store.errors import ArtifactError
from store.index_pack import pack_codes
from store.index_search import Parts, parts_of
from store.index_train import check_vectors

__all__ = ["CodedFaces", "Spool", "WrittenIndex", "code_faces", "code_sizes", "rows_a_stretch", "write_rows"]

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_STRETCH_BYTES = 32 * 2**20
_SCAN_ROWS = 32  # that a scan compares at once, and keeps together


@dataclass(frozen=True)
class WrittenIndex:
    """A finished file: its size in bytes and its hash."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class CodedFaces:
    """Some faces as an index keeps them.

    Attributes:
        rows: int64 (B,), ascending: the numbers of the faces in the index.
        lists: int64 (B,), the list of each; 0 in an index without lists.
        codes: uint8 (B, C), by which candidates are found, or the vectors as they are.
        finer: uint8 (B, F), by which they are compared again; F is 0 where there are no finer codes.
    """

    rows: Ints
    lists: Ints
    codes: Bytes
    finer: Bytes


def code_sizes(trained: Any) -> tuple[int, int]:
    """How many bytes a face's codes take, and its finer codes: C and F of CodedFaces."""
    parts = _parts(trained)
    return _code_size(parts), int(parts.finer.code_size) if parts.finer is not None else 0


def code_faces(trained: Any, rows_B: Ints, vectors_BD: npt.NDArray[np.float32]) -> CodedFaces:
    """The codes of some faces.

    Args:
        trained: as `train_index` made it; it is not changed.
        rows_B: their numbers in the index.
        vectors_BD: float32, unit length.
    """
    order = np.argsort(rows_B, kind="stable")
    rows_B, vectors_BD = rows_B[order], np.ascontiguousarray(vectors_BD[order], dtype=np.float32)
    parts = _parts(trained)
    finer_BF = parts.finer.sa_encode(vectors_BD) if parts.finer is not None else np.zeros((len(rows_B), 0), np.uint8)
    turned_BE = parts.turn.apply(vectors_BD) if parts.turn is not None else vectors_BD
    lists_B = np.zeros(len(rows_B), np.int64)
    codes_BC = np.zeros((len(rows_B), _code_size(parts)), np.uint8)
    if not len(rows_B):
        return CodedFaces(rows_B, lists_B, codes_BC, finer_BF)
    out, given = faiss.swig_ptr(codes_BC), faiss.swig_ptr(turned_BE)
    if parts.lists is not None:
        lists_B = np.ascontiguousarray(parts.lists.quantizer.assign(turned_BE, 1).reshape(-1))
        parts.lists.encode_vectors(len(rows_B), given, faiss.swig_ptr(lists_B), out, False)
    elif parts.blind:
        parts.inner.compute_codes(out, len(rows_B), given)
    else:
        codes_BC = turned_BE.view(np.uint8)
    return CodedFaces(rows_B, lists_B, codes_BC, finer_BF)


class Spool:
    """Coded faces on disk, block by block; each block sorted by list, and its finer codes by row. Left, it leaves nothing behind.

    Args:
        trained: the empty trained index.
        ids_N: int64, ascending and unique: the face of each row.
        folder: of this machine; it gets three files, as large as the index and 16 bytes a face more.

    Raises:
        ArtifactError: the ids do not ascend; the message names the first that does not.
    """

    def __init__(self, trained: Any, ids_N: Ints, folder: Path) -> None:
        if np.any(wrong := np.diff(ids_N) <= 0):
            raise ArtifactError(
                f"face {ids_N[1:][wrong][0]} stands twice in the index or out of order; ids must ascend"
            )
        self.trained, self.ids = trained, ids_N
        self._parts = parts = _parts(trained)
        code_bytes, finer_bytes = code_sizes(trained)
        self._codes = _Spooled(folder / "codes", np.uint8, code_bytes)
        self._finer = _Spooled(folder / "finer", np.uint8, finer_bytes)
        self._ranks = _Spooled(folder / "order", np.int64, 2)  # rows by list, and rows as they ascend
        self._lists = int(parts.lists.nlist) if parts.lists is not None else 1
        self._step = rows_a_stretch(trained)
        self._starts: list[int] = [0]
        self._of_lists: list[Ints] = []
        self._of_rows: list[Ints] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for spooled in (self._codes, self._finer, self._ranks):
            spooled.remove()

    def add(self, rows_B: Ints, vectors_BD: npt.NDArray[np.float32]) -> None:
        """Code and keep a block of faces.

        Raises:
            ArtifactError: a vector is none; the message names its face.
        """
        check_vectors(self.ids[rows_B], vectors_BD)
        self.append(code_faces(self.trained, rows_B, vectors_BD))

    def append(self, coded: CodedFaces) -> None:
        """Keep a block of faces that are coded."""
        order = np.lexsort((coded.rows, coded.lists))
        self._codes.append(coded.codes[order])
        self._finer.append(coded.finer)
        self._ranks.append(np.stack([coded.rows[order], coded.rows], axis=1))
        self._of_lists.append(np.searchsorted(coded.lists[order], np.arange(self._lists + 1)))
        self._of_rows.append(np.searchsorted(coded.rows, np.arange(0, len(self.ids) + self._step, self._step)))
        self._starts.append(self._starts[-1] + len(coded.rows))

    def write(self, path: Path) -> WrittenIndex:
        """Merge all blocks into an index file, flushed.

        Raises:
            ArtifactError: not every row was added once; the message has both numbers.
        """
        if self._starts[-1] != len(self.ids):
            raise ArtifactError(f"{self._starts[-1]:,} faces were added to an index of {len(self.ids):,}")
        lists = None
        if self._parts.lists is not None:
            sizes = sum((np.diff(o) for o in self._of_lists), np.zeros(self._lists, np.int64))
            lists = sizes, self._stretch_of_lists
        codes, finer = self._stretches(self._codes), self._stretches(self._finer)
        return _written(path, _pieces(self.trained, self.ids, codes=codes, finer=finer, lists=lists))

    def _stretch_of_lists(self, first: int, last: int) -> tuple[Ints, Ints, Bytes]:
        """List numbers, rows and codes of the faces in lists `first` to before `last`, block by block."""
        numbers, rows, codes = [], [], []
        for start, offsets in zip(self._starts, self._of_lists, strict=False):
            a, b = int(offsets[first]), int(offsets[last])
            numbers.append(np.repeat(np.arange(first, last), np.diff(offsets[first : last + 1])))
            rows.append(self._ranks.read(start + a, start + b)[:, 0])
            codes.append(self._codes.read(start + a, start + b))
        return np.concatenate(numbers), np.concatenate(rows), np.concatenate(codes)

    def _stretches(self, spooled: "_Spooled") -> Iterator[Any]:
        """What was spooled, by rising row, some at a time."""
        for number, first in enumerate(range(0, len(self.ids), self._step)):
            out = np.zeros((min(self._step, len(self.ids) - first), spooled.width), spooled.kind)
            filled = 0
            for start, offsets in zip(self._starts, self._of_rows, strict=False):
                a, b = start + int(offsets[number]), start + int(offsets[number + 1])
                out[self._ranks.read(a, b)[:, 1] - first] = spooled.read(a, b)
                filled += b - a
            if filled != len(out):
                raise ArtifactError(f"of rows {first} to {first + len(out)} of an index {filled} were added")
            yield out


def rows_a_stretch(trained: Any, *, most_bytes: int | None = None) -> int:
    """How many rows of such an index are written at once: whole blocks of those that a scan keeps together."""
    rows = (most_bytes or _STRETCH_BYTES) // max(*code_sizes(trained), 1)
    return max(_SCAN_ROWS, rows // _SCAN_ROWS * _SCAN_ROWS)


def write_rows(
    path: Path, trained: Any, ids_N: Ints, *, codes: Iterator[Bytes], finer: Iterator[Bytes]
) -> WrittenIndex:
    """Write an index without lists from codes by row, flushed.

    Args:
        path: of the file.
        trained: the empty trained index.
        ids_N: int64, ascending and unique: the face of each row.
        codes: uint8 (B, C), `rows_a_stretch` rows at a time; read to its end before the finer ones.
        finer: uint8 (B, F), likewise.
    """
    return _written(path, _pieces(trained, ids_N, codes=codes, finer=finer, lists=None))


def _written(path: Path, pieces: Iterable[bytes | memoryview]) -> WrittenIndex:
    digest, count = hashlib.sha256(), 0
    path.unlink(missing_ok=True)  # who has one open that stood there keeps it
    with path.open("wb") as file, ThreadPoolExecutor(1) as beside:
        hashed: Future[None] | None = None
        for data in pieces:
            if hashed is not None:
                hashed.result()
            hashed = beside.submit(digest.update, data)  # while it is written, and the next piece made
            file.write(data)
            count += len(data)
        file.flush()
        os.fsync(file.fileno())
    return WrittenIndex(bytes=count, sha256=digest.hexdigest())


def _pieces(
    trained: Any, ids_N: Ints, *, codes: Iterator[Bytes], finer: Iterator[Bytes], lists: tuple[Ints, Any] | None
) -> Iterator[bytes | memoryview]:
    """A file of so many faces; of lists their sizes are given, and what gives the faces in some of them."""
    parts, total = _parts(trained), len(ids_N)
    code_bytes, finer_bytes = code_sizes(trained)
    head, middle, tail = _template(trained, total)
    yield head
    if lists is not None:
        yield from _lists_section(int(parts.lists.code_size), *lists)  # type: ignore[union-attr]
    elif parts.blind:
        packed = (pack_codes(some, subquantizers=int(parts.inner.M)) for some in codes)
        size = -(-total // _SCAN_ROWS) * _SCAN_ROWS * (-(-int(parts.inner.M) // 2))
        yield from chain([struct.pack("<q", size)], map(_as_they_lie, packed))
    else:
        yield from chain([struct.pack("<q", total * code_bytes // 4)], map(_as_they_lie, codes))
    yield middle
    if parts.finer is not None:
        yield from chain([struct.pack("<q", total * finer_bytes)], map(_as_they_lie, finer))
    yield tail + struct.pack("<q", total)
    yield ids_N.astype("<i8").tobytes()


def _as_they_lie(codes: Bytes) -> memoryview:
    return np.ascontiguousarray(codes).data.cast("B")


class _Spooled:
    """A table on disk that is appended to, and then read in pieces: not mapped, so that what is read is not held.

    Args:
        path: of the file.
        kind: of its numbers.
        width: of a row.
    """

    def __init__(self, path: Path, kind: Any, width: int) -> None:
        self.kind, self.width = np.dtype(kind), width
        self._path = path
        self._file: BinaryIO = path.open("w+b")

    def append(self, rows: npt.NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(rows, self.kind).tobytes())

    def read(self, start: int, stop: int) -> Any:
        size = self.width * self.kind.itemsize
        self._file.flush()
        wanted = (stop - start) * size
        data = os.pread(self._file.fileno(), wanted, start * size)
        if len(data) != wanted:
            raise ArtifactError(f"{self._path} was shortened while an index was built; build again")
        return np.frombuffer(data, self.kind).reshape(stop - start, self.width)

    def remove(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Holder:
    """As an IndexIDMap holds it."""

    index: Any


def _parts(trained: Any) -> Parts:
    return parts_of(_Holder(trained))


def _code_size(parts: Parts) -> int:
    inner = parts.inner
    return int(inner.pq.code_size) if parts.blind else int(inner.code_size)


def _template(trained: Any, faces: int) -> tuple[bytes, bytes, bytes]:
    """What stands before the codes, between them and the finer codes, and between these and the ids, in a file of so many faces."""
    copy = faiss.clone_index(trained)
    index = faiss.IndexIDMap(copy)
    parts = parts_of(index)
    inner = parts.inner
    for one in (index, copy, parts.base, inner, *([parts.finer] if parts.finer is not None else [])):
        one.ntotal = faces
    if parts.blind:
        inner.ntotal2 = -(-faces // _SCAN_ROWS) * _SCAN_ROWS
    data = bytes(faiss.serialize_index(index))[:-8]  # without the number of ids
    if parts.lists is not None:
        mark = b"ilar" + struct.pack("<qq", int(inner.nlist), int(inner.code_size)) + b"sprs" + bytes(8)
        head, after = data.split(mark)
    else:
        head, after = _split_after(data, bytes(faiss.serialize_index(inner)))
    if parts.finer is None:
        return head, after, b""
    return head, *_split_after(after, bytes(faiss.serialize_index(parts.finer)))


def _split_after(data: bytes, own: bytes) -> tuple[bytes, bytes]:
    """What stands before and after the number of codes at the end of an index of its own within another."""
    at = data.index(own) + len(own)
    return data[: at - 8], data[at:]


def _lists_section(code_size: int, sizes: Ints, of_lists: Any) -> Iterator[bytes]:
    nlist, filled = len(sizes), np.flatnonzero(sizes)
    yield b"ilar" + struct.pack("<qq", nlist, code_size)
    if len(filled) > nlist // 2:
        yield b"full" + struct.pack("<q", nlist) + sizes.astype("<i8").tobytes()
    else:
        pairs = np.stack([filled, sizes[filled]], axis=1).astype("<i8")
        yield b"sprs" + struct.pack("<q", pairs.size) + pairs.tobytes()
    for first, last in _ranges(sizes * (code_size + 8)):
        numbers, rows, codes = of_lists(first, last)
        order = np.lexsort((rows, numbers))
        rows, codes = rows[order], codes[order]
        ends = np.concatenate([[0], np.cumsum(sizes[first:last])])
        for a, b in pairwise(ends):
            yield codes[a:b].tobytes()
            yield rows[a:b].tobytes()


def _ranges(sizes: Ints) -> Iterable[tuple[int, int]]:
    """Ranges of lists that together have about _STRETCH_BYTES."""
    first, held = 0, 0
    for number, size in enumerate(sizes.tolist()):
        if held and held + size > _STRETCH_BYTES:
            yield first, number
            first, held = number, 0
        held += size
    if first < len(sizes):
        yield first, len(sizes)
