"""Large files of a store on this machine: checked by hash once, and remembered for as long as they stay as they are.

A local store's file is used where it lies; an object is downloaded once, under its hash. What was checked is remembered by
empty files whose names say it all, `checked/<sha256>/<device>-<inode>-<size>-<mtime_ns>`, so that no record can be half written.
All of it may be erased at any time.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from store.errors import ArtifactError, StoreError
from store.storage import Storage

__all__ = ["MAKING", "cache_folder", "is_noted", "is_verified", "note", "note_verified", "purge_files", "verified_file"]

MAKING = "making-"
"""Folders of the cache in which large files are made begin so."""

_UNUSED_DAYS = 30
_MOST_FILES = 8
_MOST_MARKS = 512
_PIECE = 8 * 2**20
_DAY_S = 86_400.0


def cache_folder() -> Path:
    """Where lookalike keeps what it can make anew: LOOKALIKE_CACHE, by default the user's cache folder."""
    cache = os.environ.get("LOOKALIKE_CACHE")
    return Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lookalike"


def verified_file(storage: Storage, path: str, *, sha256: str, size: int) -> Path:
    """A path on this machine of a store's file whose bytes are known to be the right ones.

    Args:
        storage: the store.
        path: of the file in it.
        sha256: that it must have.
        size: in bytes; no more is downloaded.

    Raises:
        ArtifactError: the file is missing, or is not what its hash says.
        StoreError: an object cannot be kept on this machine; the message says where.
    """
    where = storage.uri_of(path)
    local = storage.local_path(path)
    if local is not None:
        try:
            _check(local, sha256=sha256, where=where)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ArtifactError(f"{where} is missing from the store; build again to make it anew") from error
        return local
    kept = cache_folder() / "files" / sha256
    if kept.is_file():
        with contextlib.suppress(ArtifactError):  # what was damaged here is brought again
            _check(kept, sha256=sha256, where=str(kept))
            return kept
    try:
        _download(storage, path, kept, sha256=sha256, size=size)
    except OSError as error:
        raise StoreError(
            f"{where} cannot be kept at {kept} ({error.strerror or error}): make room, or set LOOKALIKE_CACHE to a folder "
            "you may write to"
        ) from error
    _sweep(keep=sha256)
    return kept


def is_verified(storage: Storage, path: str, *, sha256: str) -> bool:
    """Whether this very file of this machine had that hash when it was hashed last, and has not changed since."""
    local = storage.local_path(path)
    with contextlib.suppress(FileNotFoundError):
        return local is not None and is_noted(sha256, _identity(local))
    return False


def note_verified(storage: Storage, path: str, *, sha256: str) -> None:
    """Remember that the file has that hash, which somebody has just found."""
    local = storage.local_path(path)
    if local is not None:
        with contextlib.suppress(FileNotFoundError):
            note(sha256, _identity(local))


def note(sha256: str, what: str) -> None:
    """Remember something of the bytes with this hash; a cache that cannot be written remembers nothing."""
    with contextlib.suppress(OSError):
        folder = _marks(sha256)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / what).touch()


def is_noted(sha256: str, what: str) -> bool:
    """Whether it is remembered."""
    return (_marks(sha256) / what).is_file()


def purge_files(sha256s: Iterable[str]) -> None:
    """Remove what this machine holds and remembers of files with these hashes; who has one open keeps it until it closes it.

    Raises:
        OSError: a file cannot be removed.
    """
    for sha256 in sha256s:
        (cache_folder() / "files" / sha256).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(_marks(sha256))


def _check(file: Path, *, sha256: str, where: str) -> None:
    """Hash the file, unless this very file was hashed before and has not changed since.

    Raises:
        ArtifactError: it has another hash.
    """
    before = _identity(file)
    if is_noted(sha256, before):
        note(sha256, before)  # used today
        return
    got = _hash(_pieces(file))
    if got != sha256 or _identity(file) != before:
        raise ArtifactError(
            f"{where} has changed: its sha256 is {got[:12]}…, recorded was {sha256[:12]}…; it is not used"
        )
    note(sha256, before)
    _sweep(keep=sha256)


def _download(storage: Storage, path: str, kept: Path, *, sha256: str, size: int) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest, written = hashlib.sha256(), 0
    with tempfile.NamedTemporaryFile(dir=kept.parent, prefix=".coming-", delete=False) as part:
        try:
            for piece in storage.chunks(path):
                part.write(piece)
                digest.update(piece)
                written += len(piece)
                if written > size:
                    break
            part.flush()
            os.fsync(part.fileno())
            if (got := digest.hexdigest()) != sha256:
                raise ArtifactError(
                    f"{storage.uri_of(path)} has changed: its sha256 is {got[:12]}…, recorded was {sha256[:12]}…; it is not used"
                )
            os.replace(part.name, kept)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part.name)
    note(sha256, _identity(kept))


def _sweep(*, keep: str) -> None:
    """Remove what nobody used for 30 days, all but the files used last, and what died on its way; at most 512 marks are looked at."""
    with contextlib.suppress(OSError):
        now = time.time()
        used = {}
        for folder in list(_entries(cache_folder() / "checked"))[:_MOST_MARKS]:
            used[folder.name] = max((mark.stat().st_mtime for mark in _entries(folder)), default=0.0)
        files = {file.name: file for file in _entries(cache_folder() / "files") if not file.name.startswith(".")}
        by_use = sorted(files, key=lambda name: used.get(name, files[name].stat().st_mtime), reverse=True)
        old = {name for name, at in used.items() if now - at > _UNUSED_DAYS * _DAY_S}
        purge_files((old | set(by_use[_MOST_FILES:])) - {keep})
        for part in (cache_folder() / "files").glob(".coming-*"):
            if now - part.stat().st_mtime > _DAY_S:
                part.unlink(missing_ok=True)
        for room in cache_folder().glob(f"{MAKING}*"):
            if now - room.stat().st_mtime > _DAY_S:
                shutil.rmtree(room)


def _entries(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from folder.iterdir()


def _marks(sha256: str) -> Path:
    return cache_folder() / "checked" / sha256


def _identity(file: Path) -> str:
    there = file.stat()
    return f"{there.st_dev}-{there.st_ino}-{there.st_size}-{there.st_mtime_ns}"


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        yield from iter(lambda: opened.read(_PIECE), b"")


def _hash(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
