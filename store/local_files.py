"""Files in a folder of this machine: written whole or not at all, and still there after the power has gone.

A file is written under runs/staging, flushed, and moved into place. Whatever makes a name durable is flushed too: the folder
of the file, and the folders above it that are new.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ["STAGING", "LocalFiles"]

STAGING = "runs/staging"
"""Where files lie on their way to their place; what lies there for a day belongs to a process that died."""

_SEALS = ("manifest.json", "card.json", "checkpoint.json")
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP)
_BLOCK = 1 << 20


class LocalFiles:
    """Files under one folder, addressed by relative paths with slashes.

    Args:
        root: the folder, which may not exist yet.
    """

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")
        self._durable: set[Path] = set()

    def path_of(self, path: str) -> Path:
        """Where a file lies on this machine."""
        return Path(f"{self._root}/{path}".rstrip("/") or "/")

    def exists(self, path: str) -> bool:
        """Whether the file or folder is there."""
        return os.path.exists(self.path_of(path))

    def size(self, path: str) -> int:
        """The file's bytes, or FileNotFoundError."""
        return os.stat(self.path_of(path)).st_size

    def read(self, path: str) -> bytes:
        """The file's bytes, or FileNotFoundError."""
        return self.path_of(path).read_bytes()

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`; fewer where the file ends earlier."""
        with self.path_of(path).open("rb") as file:
            file.seek(start)
            return file.read(max(0, stop - start))

    def chunks(self, path: str, chunk_bytes: int) -> Iterator[bytes]:
        """The file's bytes piece by piece, or FileNotFoundError."""
        with self.path_of(path).open("rb") as file:
            yield from iter(lambda: file.read(chunk_bytes), b"")

    def stamp(self, path: str) -> str | None:
        """What changes whenever the file does; None where there is none."""
        try:
            there = os.stat(self.path_of(path))
        except FileNotFoundError:
            return None
        return f"{there.st_dev}-{there.st_ino}-{there.st_size}-{there.st_mtime_ns}"

    def modified_s(self, path: str) -> float | None:
        """When the file was last written, in seconds since the epoch; None where there is none."""
        try:
            return os.stat(self.path_of(path)).st_mtime
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Put the bytes in place in one step, whatever stood there."""
        with self._staged(data) as staged:
            self._move(staged, self.path_of(path))

    def create(self, path: str, data: bytes) -> bool:
        """Put the bytes in place in one step unless a file stands there; False where one does."""
        target = self.path_of(path)
        with self._staged(data) as staged:
            self._make_folder(target.parent)
            try:
                os.link(staged, target)
            except FileExistsError:
                _sync_folder(target.parent)  # whoever made it may have died before this
                return False
            _sync_folder(target.parent)
            return True

    def swap(self, path: str, data: bytes, *, expected: bytes) -> bool:
        """Put the bytes in place in one step where the file still holds `expected`; False where it does not."""
        with self._locked(path):
            if not self.exists(path) or self.read(path) != expected:
                return False
            self.write(path, data)
            return True

    def names(self, path: str) -> list[str]:
        """The names of what stands directly in a folder, sorted; none if there is no such folder."""
        try:
            return sorted(os.listdir(self.path_of(path)))
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:
        """Remove a file or a folder; of a folder first what makes it valid, so that no half of one is taken for whole."""
        target = self.path_of(path)
        with contextlib.suppress(FileNotFoundError):  # gone already, or somebody else removes it too
            if target.is_dir() and not target.is_symlink():
                self._remove_folder(target)
            else:
                target.unlink(missing_ok=True)
            _sync_folder(target.parent)

    def download(self, path: str, target: Path) -> None:
        """Copy the file to a path of this machine in one step, or FileNotFoundError."""
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            _copy(self.path_of(path), part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    def upload(self, path: str, source: Path) -> None:
        """Put a copy of a file of this machine in place in one step, whatever stood there."""
        with self._staging() as staged:
            _copy(source, staged)
            self._move(staged, self.path_of(path))

    def adopt(self, path: str, source: Path) -> None:
        """Move a flushed file of this machine to its place in one step, whatever stood there; from another disk it is copied."""
        try:
            self._move(source, self.path_of(path))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self.upload(path, source)
            source.unlink()

    def copy(self, source: str, target: str) -> None:
        """Put a file in a second place in one step, by a hard link where the file system has them, or FileNotFoundError."""
        with self._staging() as staged:
            try:
                os.link(self.path_of(source), staged)
                _sync(staged)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                _copy(self.path_of(source), staged)
            self._move(staged, self.path_of(target))

    def check(self) -> None:
        """Make a small file, exclusively as everything that commits is made, and remove it."""
        probe = f"runs/probe-{uuid.uuid4().hex}"
        self.create(probe, b"lookalike")
        self.remove(probe)

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        """A path under runs/staging for one file, which is gone afterwards."""
        staged = self.path_of(f"{STAGING}/{uuid.uuid4().hex}")
        self._make_folder(staged.parent)
        try:
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _staged(self, data: bytes) -> Iterator[Path]:
        with self._staging() as staged:
            with staged.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield staged

    def _move(self, staged: Path, target: Path) -> None:
        self._make_folder(target.parent)
        os.replace(staged, target)
        _sync_folder(target.parent)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, and flush their names; once a process flushes those that were there.

        A folder that another process has made may not have been flushed by it yet.
        """
        if folder in self._durable and folder.is_dir():
            return
        above = [folder, *folder.parents]
        missing = [one for one in above if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        root = Path(self._root)
        for one in above:
            if root not in one.parents and one not in missing:
                break
            _sync_folder(one.parent)
        self._durable.add(folder)

    def _remove_folder(self, folder: Path) -> None:
        for name in _SEALS:
            (folder / name).unlink(missing_ok=True)
        _sync_folder(folder)
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                self._remove_folder(entry)
            else:
                entry.unlink(missing_ok=True)
        _sync_folder(folder)
        folder.rmdir()

    @contextlib.contextmanager
    def _locked(self, path: str) -> Iterator[None]:
        """Hold a lock that the kernel gives back when this process dies."""
        lock = self.path_of("runs/locks") / path.replace("/", "-")
        self._make_folder(lock.parent)
        with lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("xb") as written:
        shutil.copyfileobj(read, written, _BLOCK)
        written.flush()
        os.fsync(written.fileno())


def _sync_folder(folder: Path) -> None:
    """Have a folder's names on the disk, where its file system can do that."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
