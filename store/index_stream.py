"""Fill an index of lists on disk: blocks of faces are coded and spooled, then merged into one file, list by list.

No more than a block, and one stretch of the file, is in memory at a time, however many faces there are. The file is byte for byte
what FAISS writes of the same index filled in memory.

B faces of a block, D dimensions.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from store.index_search import Parts, parts_of
from store.index_train import check_vectors

__all__ = ["CodedFaces", "Spool", "WrittenIndex", "code_faces", "write_lists"]

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_STRETCH_BYTES = 32 * 2**20


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
        lists: int64 (B,), the list of each.
        codes: uint8 (B, C), by which candidates are found.
        finer: uint8 (B, F), by which they are compared again; F is 0 where there are no finer codes.
    """

    rows: Ints
    lists: Ints
    codes: Bytes
    finer: Bytes


def code_faces(trained: Any, rows_B: Ints, vectors_BD: npt.NDArray[np.float32]) -> CodedFaces:
    """The codes of some faces.

    Args:
        trained: as `train_index` made it; it is not changed.
        rows_B: their numbers in the index.
        vectors_BD: float32, unit length.

    Raises:
        ArtifactError: a vector is none; see `check_vectors`.
    """
    order = np.argsort(rows_B, kind="stable")
    rows_B, vectors_BD = rows_B[order], np.ascontiguousarray(vectors_BD[order], dtype=np.float32)
    parts = _parts(trained)
    turned_BE = parts.turn.apply(vectors_BD) if parts.turn is not None else vectors_BD
    assert parts.lists is not None  # noqa: S101
    lists_B = np.ascontiguousarray(parts.lists.quantizer.assign(turned_BE, 1).reshape(-1))
    codes_BC = np.zeros((len(rows_B), int(parts.lists.code_size)), np.uint8)
    if len(rows_B):
        parts.lists.encode_vectors(
            len(rows_B), faiss.swig_ptr(turned_BE), faiss.swig_ptr(lists_B), faiss.swig_ptr(codes_BC), False
        )
    finer_BF = parts.finer.sa_encode(vectors_BD) if parts.finer is not None else np.zeros((len(rows_B), 0), np.uint8)
    return CodedFaces(rows_B, lists_B, codes_BC, finer_BF)


def _parts(trained: Any) -> Parts:
    return parts_of(_Holder(trained))


@dataclass(frozen=True)
class _Holder:
    """As an IndexIDMap holds it."""

    index: Any


class Spool:
    """Coded faces on disk, block by block; each block sorted by list, and its finer codes by row.

    Args:
        trained: the empty trained index.
        folder: of this machine; it gets three files.
    """

    def __init__(self, trained: Any, folder: Path) -> None:
        self.trained = trained
        self._parts = _parts(trained)
        self._paths = [folder / name for name in ("codes", "finer", "order")]
        self._starts: list[int] = [0]
        self._offsets: list[Ints] = []

    def add(self, ids_B: Ints, rows_B: Ints, vectors_BD: npt.NDArray[np.float32]) -> None:
        """Code and keep a block of faces.

        Raises:
            ArtifactError: a vector is none; the message names its face.
        """
        check_vectors(ids_B, vectors_BD)
        coded = code_faces(self.trained, rows_B, vectors_BD)
        order = np.lexsort((coded.rows, coded.lists))
        ranks = np.concatenate([coded.rows[order], coded.rows])
        for path, kept in zip(self._paths, (coded.codes[order], coded.finer, ranks), strict=True):
            with path.open("ab") as file:
                file.write(kept.tobytes())
        nlist = int(self._parts.lists.nlist)  # type: ignore[union-attr]
        self._offsets.append(np.searchsorted(coded.lists[order], np.arange(nlist + 1)))
        self._starts.append(self._starts[-1] + len(rows_B))

    def write(self, path: Path, ids_N: Ints) -> WrittenIndex:
        """Merge all blocks into an index file.

        Args:
            path: of the file.
            ids_N: int64, the face of each row.
        """
        lists, finer = self._parts.lists, self._parts.finer
        assert lists is not None  # noqa: S101
        total = self._starts[-1]
        codes = _mapped(self._paths[0], np.uint8, (total, int(lists.code_size)))
        fine = _mapped(self._paths[1], np.uint8, (total, int(finer.code_size) if finer is not None else 0))
        ranks = _mapped(self._paths[2], np.int64, (2 * total,))
        sizes = sum((np.diff(o) for o in self._offsets), np.zeros(int(lists.nlist), np.int64))

        def of_lists(first: int, last: int) -> tuple[Ints, Ints, Bytes]:
            found = []
            for start, offsets in zip(self._starts, self._offsets, strict=False):
                a, b = int(offsets[first]), int(offsets[last])
                number = np.repeat(np.arange(first, last), np.diff(offsets[first : last + 1]))
                found.append((number, ranks[2 * start + a : 2 * start + b], codes[start + a : start + b]))
            numbers, rows, parts = (np.concatenate(one) for one in zip(*found, strict=True))
            return numbers, rows, parts

        def of_rows(first: int, last: int) -> Bytes:
            out = np.zeros((last - first, fine.shape[1]), np.uint8)
            for start, stop in zip(self._starts, self._starts[1:], strict=False):
                rows = ranks[start + stop : 2 * stop]
                a, b = np.searchsorted(rows, (first, last))
                out[rows[a:b] - first] = fine[start + a : start + b]
            return out

        written = write_lists(path, self.trained, ids_N, sizes=sizes, of_lists=of_lists, of_rows=of_rows)
        for spooled in self._paths:
            spooled.unlink(missing_ok=True)
        return written


def write_lists(
    path: Path,
    trained: Any,
    ids_N: Ints,
    *,
    sizes: Ints,
    of_lists: Callable[[int, int], tuple[Ints, Ints, Bytes]],
    of_rows: Callable[[int, int], Bytes],
) -> WrittenIndex:
    """Write an index file of lists piece by piece, as FAISS would.

    Args:
        path: of the file.
        trained: the empty trained index.
        ids_N: int64, the face of each row.
        sizes: int64, faces in each list.
        of_lists: list numbers, rows and codes of the faces in lists `first` to before `last`, in any order.
        of_rows: finer codes of rows `first` to before `last`.
    """
    parts = _parts(trained)
    assert parts.lists is not None  # noqa: S101
    head, middle, tail = _template(trained, len(ids_N))
    digest, count = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in (
            iter([head]),
            _lists_section(int(parts.lists.code_size), sizes, of_lists),
            iter([middle]),
            _rows_section(parts, len(ids_N), of_rows),
            iter([tail, struct.pack("<q", len(ids_N)), ids_N.tobytes()]),
        ):
            for data in piece:
                file.write(data)
                digest.update(data)
                count += len(data)
    return WrittenIndex(bytes=count, sha256=digest.hexdigest())


def _template(trained: Any, faces: int) -> tuple[bytes, bytes, bytes]:
    """What stands before the lists, between them and the finer codes, and between these and the ids, in a file of so many faces."""
    copy = faiss.clone_index(trained)
    index = faiss.IndexIDMap(copy)
    parts = parts_of(index)
    assert parts.lists is not None  # noqa: S101
    for one in (index, copy, parts.base, parts.lists, *([parts.finer] if parts.finer is not None else [])):
        one.ntotal = faces
    data = bytes(faiss.serialize_index(index))
    mark = b"ilar" + struct.pack("<qq", int(parts.lists.nlist), int(parts.lists.code_size)) + b"sprs" + bytes(8)
    before, after = data.split(mark)
    after = after[: -len(bytes(8))]  # the number of ids
    if parts.finer is None:
        return before, after, b""
    own = bytes(faiss.serialize_index(parts.finer))
    at = after.index(own) + len(own) - 8
    return before, after[:at], after[at + 8 :]


def _lists_section(
    code_size: int, sizes: Ints, of_lists: Callable[[int, int], tuple[Ints, Ints, Bytes]]
) -> Iterator[bytes]:
    nlist, filled = len(sizes), np.flatnonzero(sizes)
    yield b"ilar" + struct.pack("<qq", nlist, code_size)
    if len(filled) > nlist // 2:
        yield b"full" + struct.pack("<q", nlist) + sizes.astype("<i8").tobytes()
    else:
        pairs = np.stack([filled, sizes[filled]], axis=1).astype("<i8")
        yield b"sprs" + struct.pack("<q", pairs.size) + pairs.tobytes()
    for first, last in _stretches(sizes * (code_size + 8)):
        numbers, rows, codes = of_lists(first, last)
        order = np.lexsort((rows, numbers))
        rows, codes = rows[order], codes[order]
        ends = np.concatenate([[0], np.cumsum(sizes[first:last])])
        for a, b in pairwise(ends):
            yield codes[a:b].tobytes()
            yield rows[a:b].tobytes()


def _rows_section(parts: Parts, faces: int, of_rows: Callable[[int, int], Bytes]) -> Iterator[bytes]:
    if parts.finer is None:
        return
    size = int(parts.finer.code_size)
    yield struct.pack("<q", faces * size)
    step = max(1, _STRETCH_BYTES // size)
    for first in range(0, faces, step):
        yield of_rows(first, min(faces, first + step)).tobytes()


def _stretches(sizes: Ints) -> Iterator[tuple[int, int]]:
    """Ranges of lists that together have about _STRETCH_BYTES."""
    first, held = 0, 0
    for number, size in enumerate(sizes.tolist()):
        if held and held + size > _STRETCH_BYTES:
            yield first, number
            first, held = number, 0
        held += size
    if first < len(sizes):
        yield first, len(sizes)


def _mapped(path: Path, kind: Any, shape: tuple[int, ...]) -> Any:
    return np.memmap(path, kind, mode="r", shape=shape) if 0 not in shape else np.zeros(shape, kind)
