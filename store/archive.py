"""A version as one file: an uncompressed tar of the files that it stands on, its manifest first.

What is read here may come from anybody. So nothing but plain files under names of the store's own is known, each once, and
sizes and names are believed only as far as the manifest agrees; there are no links, no extended headers, no sparse files.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from store.errors import LookalikeError
from store.storage import Storage

__all__ = ["ArchiveError", "Member", "read_members", "write_members"]

_BLOCK = 512
_PIECE = 2**20
_NAME = re.compile(
    r"(versions/\d{6,9}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,60}|(photos|faces|embeddings)/[0-9a-f]{32}/[0-9a-f]{32}\.parquet"
    r"|encoders/[0-9a-f]{32}/(card\.json|weights\.safetensors|model\.onnx))"
)
_PLAIN = (b"0", b"\0")
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a pipe",
}


class ArchiveError(LookalikeError):
    """A file is not a version's archive; the message says where in it and why."""


@dataclass(frozen=True)
class Member:
    """One file of an archive, to be read before the next one is asked for.

    Attributes:
        name: its path in a store.
        size: in bytes.
        pieces: its bytes.
    """

    name: str
    size: int
    pieces: Iterator[bytes]


def write_members(file: BinaryIO, storage: Storage, members: Iterator[tuple[str, str, int]]) -> int:
    """Write files of a store as a tar that is the same whenever it is written.

    Args:
        file: where it goes.
        storage: the store.
        members: path in the archive, path in the store and size in bytes of each.

    Returns:
        How many bytes were written.

    Raises:
        ArtifactError: a file is missing.
        ArchiveError: a file does not have the size it should.
    """
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, path, size in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = size, 0o644
            reader = _Reader(storage.chunks(path, chunk_bytes=_PIECE))
            try:
                tar.addfile(info, reader)  # type: ignore[arg-type]
            except OSError as error:
                if error.errno is not None:  # the disk's
                    raise
                raise _of_another_size(storage, path, size) from error
            if reader.read(1):
                raise _of_another_size(storage, path, size)
    return file.tell()


def _of_another_size(storage: Storage, path: str, size: int) -> ArchiveError:
    return ArchiveError(f"{storage.uri_of(path)} does not have {size} bytes: it changed while it was exported")


def read_members(file: BinaryIO, *, where: str) -> Iterator[Member]:
    """The files of an archive, one after another.

    Raises:
        ArchiveError: it is not what `write_members` writes; the message says where it is not.
    """
    seen: set[str] = set()
    while True:
        header = file.read(_BLOCK)
        if header == bytes(_BLOCK):
            return
        name, size = _parsed(header, where=where)
        if name in seen:
            raise ArchiveError(f"{where} holds {name} twice; nothing was imported")
        seen.add(name)
        left = [size]
        yield Member(name=name, size=size, pieces=_pieces(file, left, where=where, name=name))
        for _ in _pieces(file, left, where=where, name=name):
            pass
        if len(file.read(-size % _BLOCK)) != -size % _BLOCK:
            raise ArchiveError(f"{where} ends within {name}; nothing was imported")


def _parsed(header: bytes, *, where: str) -> tuple[str, int]:
    """Name and size in a header; whatever else a header can say is refused."""
    if len(header) != _BLOCK:
        raise ArchiveError(f"{where} ends without a tar's end; nothing was imported")
    try:
        checksum = int(header[148:156].rstrip(b" \0") or b"x", 8)
    except ValueError:
        checksum = -1
    if checksum != sum(header[:148]) + 8 * 0x20 + sum(header[156:]) or header[257:262] != b"ustar":
        raise ArchiveError(f"{where} is not an uncompressed tar that `lookalike export` wrote; nothing was imported")
    name = header[:100].split(b"\0")[0].decode("ascii", errors="backslashreplace")
    kind = header[156:157]
    if kind not in _PLAIN or header[345:500].strip(b"\0"):
        raise ArchiveError(
            f"{where} holds {_KINDS.get(kind, 'an extended header')} ({name[:60]!r}); nothing was imported"
        )
    if not _NAME.fullmatch(name) or ".." in name:
        raise ArchiveError(f"{where} holds {name[:80]!r}, which is no file of a version; nothing was imported")
    return name, _size(header[124:136], where=where, name=name)


def _size(field: bytes, *, where: str, name: str) -> int:
    if field[0] == 0x80:  # beyond 8 GiB a tar counts in binary
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.rstrip(b" \0") or b"x", 8)
    except ValueError as error:
        raise ArchiveError(f"{where} gives {name} no size; nothing was imported") from error


def _pieces(file: BinaryIO, left: list[int], *, where: str, name: str) -> Iterator[bytes]:
    while left[0]:
        piece = file.read(min(left[0], _PIECE))
        if not piece:
            raise ArchiveError(f"{where} ends within {name}; nothing was imported")
        left[0] -= len(piece)
        yield piece


class _Reader:
    """Pieces as a file that can be read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
