"""Files under one root, local or on S3: written whole or not at all.

The one class over fsspec. A local file is written under runs/staging, flushed, and moved into place; an object is one PUT.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import fsspec
from fsspec.implementations.local import LocalFileSystem

from store.errors import ArtifactError, StoreError
from store.fingerprints import sha256_hex

__all__ = ["Storage", "decode_path", "encode_path", "is_local", "normalise_uri"]

_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP)
_ENCODED_BYTE = re.compile(r"%[89A-F][0-9A-F]")


def is_local(uri: str) -> bool:
    """Whether the uri is a path of this machine and no url."""
    return "://" not in uri or uri.startswith("file://")


def normalise_uri(uri: str | os.PathLike[str]) -> str:
    """The one spelling of a uri: an absolute normalised path, or the url without a slash at its end.

    Bytes of a path that are no UTF-8 are percent-encoded, so that every uri is text.
    """
    text = os.fspath(uri)
    if not is_local(text):
        return text.rstrip("/")
    path = os.path.abspath(os.path.expanduser(text.removeprefix("file://")))
    return encode_path("/" + path.lstrip("/"))  # POSIX lets abspath keep two slashes at the start


def encode_path(path: str) -> str:
    """A path as text: unchanged where it is UTF-8, other bytes percent-encoded."""
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in path)


def decode_path(uri: str) -> str:
    """The path on disk that a local uri names: itself, or the one `encode_path` was given."""
    if not _ENCODED_BYTE.search(uri) or os.path.lexists(uri):
        return uri
    decoded = os.fsdecode(b"".join(_decoded_parts(uri)))
    return decoded if encode_path(decoded) == uri else uri


def _decoded_parts(uri: str) -> Iterator[bytes]:
    """The uri's bytes, with only those decoded that `encode_path` encodes: 80 to FF."""
    at = 0
    for match in _ENCODED_BYTE.finditer(uri):
        yield uri[at : match.start()].encode()
        yield unquote_to_bytes(match.group())
        at = match.end()
    yield uri[at:].encode()


class Storage:
    """Files under one root, addressed by relative paths with slashes.

    Args:
        uri: a folder, or `s3://bucket/prefix`.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.uri = normalise_uri(uri)
        self.local = is_local(self.uri)
        self._fs: Any
        if self.local:  # not by url_to_fs, to which "::" in a path means something else
            self._fs, root = LocalFileSystem(), decode_path(self.uri)
        else:
            self._fs, root = fsspec.core.url_to_fs(self.uri)
        self._root = str(root).rstrip("/")

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    def uri_of(self, path: str) -> str:
        """The uri of a file of this storage."""
        return f"{self.uri}/{path}"

    def path_of(self, uri: str) -> str:
        """The relative path in a uri of this storage."""
        if not uri.startswith(self.uri + "/"):
            raise ArtifactError(f"{uri} is not in the store {self.uri}")
        return uri[len(self.uri) + 1 :]

    def exists(self, path: str) -> bool:
        """Whether the file or folder is there."""
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._full(path)))

    def read(self, path: str, *, sha256: str | None = None) -> bytes:
        """The file's bytes.

        Raises:
            ArtifactError: the file is missing, or its bytes are not those of `sha256`.
        """
        try:
            data: bytes = self._fs.cat_file(self._full(path))
        except FileNotFoundError as error:
            raise self._missing(path) from error
        if sha256 is not None and (got := sha256_hex(data)) != sha256:
            raise ArtifactError(
                f"{self.uri_of(path)} has changed: its sha256 is {got[:12]}…, recorded was {sha256[:12]}…; it is not used"
            )
        return data

    def write(self, path: str, data: bytes) -> None:
        """Put the bytes in place in one step, whatever stood there."""
        if not self.local:
            self._fs.pipe_file(self._full(path), data)
            return
        with self._staged(path, data) as (staged, target):
            os.replace(staged, target)
            _sync_folder(target.parent)

    def create(self, path: str, data: bytes) -> bool:
        """Put the bytes in place in one step unless a file stands there already.

        Returns:
            True when this call made the file, False when it was there.
        """
        if not self.local:
            return self._create_object(path, data)
        with self._staged(path, data) as (staged, target):
            try:
                os.link(staged, target)
            except FileExistsError:
                return False
            _sync_folder(target.parent)
            return True

    def swap(self, path: str, data: bytes, *, expected: bytes | None) -> bool:
        """Put the bytes in place in one step where the file still holds `expected`; None wants no file there.

        Of several callers that expect the same, one succeeds.

        Returns:
            True when this call put them there, False when the file holds something else.
        """
        if expected is None:
            return self.create(path, data)
        if not self.local:
            return self._swap_object(path, data, expected=expected)
        with self._locked(path):
            if not self.exists(path) or self.read(path) != expected:
                return False
            self.write(path, data)
            return True

    # What readers of large files, leases and the publishing of versions ask for

    def local_path(self, path: str) -> Path | None:
        """Where the file lies on this machine; None where it does not."""
        return Path(self._full(path)) if self.local else None

    def chunks(self, path: str, *, chunk_bytes: int = 8 * 2**20) -> Iterator[bytes]:
        """The file's bytes piece by piece, so that no file needs to fit into memory.

        Raises:
            ArtifactError: the file is missing.
        """
        try:
            if self.local:
                with open(self._full(path), "rb") as file:
                    yield from iter(lambda: file.read(chunk_bytes), b"")
                return
            self._fs.invalidate_cache()
            size = int(self._fs.info(self._full(path))["size"])
            for start in range(0, size, chunk_bytes):
                yield self._fs.cat_file(self._full(path), start=start, end=min(size, start + chunk_bytes))
        except FileNotFoundError as error:
            raise self._missing(path) from error

    def copy(self, source: str, target: str) -> None:
        """Put a file in a second place in one step, without its bytes passing through: a hard link, or the service's own copy.

        Raises:
            ArtifactError: there is no such file.
        """
        try:
            if self.local:
                self._link(Path(self._full(source)), Path(self._full(target)))
            else:
                self._fs.cp_file(self._full(source), self._full(target))
        except FileNotFoundError as error:
            raise self._missing(source) from error

    def upload(self, path: str, source: Path) -> None:
        """Put a file of this machine in place in one step; it must not be changed afterwards."""
        if self.local:
            self._link(source, Path(self._full(path)))
        else:
            self._fs.put_file(str(source), self._full(path))

    def stamp(self, path: str) -> str | None:
        """What changes whenever the file does, at the cost of one small question; None where there is no file."""
        try:
            if self.local:
                there = os.stat(self._full(path))
                return f"{there.st_dev}-{there.st_ino}-{there.st_size}-{there.st_mtime_ns}"
            self._fs.invalidate_cache()
            info = self._fs.info(self._full(path))
            return f"{info['ETag']}-{info['size']}"
        except FileNotFoundError:
            return None

    def modified_s(self, path: str) -> float | None:
        """When the file was last written, in seconds since the epoch by the storage's own clock; None where there is no file."""
        try:
            if self.local:
                return os.stat(self._full(path)).st_mtime
            self._fs.invalidate_cache()
            return float(self._fs.info(self._full(path))["LastModified"].timestamp())
        except FileNotFoundError:
            return None

    def _missing(self, path: str) -> ArtifactError:
        return ArtifactError(f"{self.uri_of(path)} is missing from the store; build again to make it anew")

    def _link(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(self._full("runs/staging")) / uuid.uuid4().hex
        staged.parent.mkdir(parents=True, exist_ok=True)
        try:
            try:
                os.link(source, staged)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                shutil.copyfile(source, staged)
            _sync(staged)
            os.replace(staged, target)
            _sync_folder(target.parent)
        finally:
            staged.unlink(missing_ok=True)

    def names(self, path: str = "") -> list[str]:
        """The names of what stands directly in a folder, sorted; none if there is no such folder.

        Raises:
            NotADirectoryError: a file of this machine stands there.
        """
        if self.local and os.path.isfile(self._full(path)):
            raise NotADirectoryError(self._full(path))
        self._fs.invalidate_cache()
        try:
            entries = self._fs.ls(self._full(path), detail=False)
        except FileNotFoundError:
            return []
        return sorted({str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries} - {""})

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all it holds; nothing happens if there is none."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._full(path), recursive=True)

    def check_writable(self) -> None:
        """Make a small file, exclusively as everything that commits is made, and remove it.

        Raises:
            StoreError: the store cannot be written; the message says why.
        """
        probe = f"runs/probe-{uuid.uuid4().hex}"
        try:
            self.create(probe, b"lookalike")
            self.remove(probe)
        except Exception as error:  # every backend has its own kinds
            raise StoreError(
                f"the store {self.uri} cannot be written ({type(error).__name__}: {error}): "
                "give a folder or an s3:// prefix you may write to with --store"
            ) from error

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    def _create_object(self, path: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(self._full(path), data, mode="create")
        except OSError as error:
            if isinstance(error, FileExistsError) or _condition_failed(error):
                return False
            raise
        return True

    def _swap_object(self, path: str, data: bytes, *, expected: bytes) -> bool:
        full = self._full(path)
        self._fs.invalidate_cache()
        try:
            etag = self._fs.info(full)["ETag"]
            if self._fs.cat_file(full) != expected:
                return False
            self._fs.pipe_file(full, data, IfMatch=etag)
        except FileNotFoundError:
            return False
        except OSError as error:
            if not _condition_failed(error):
                raise
            return bool(self._fs.cat_file(full) == data)  # the answer to a first PUT may have been lost
        return True

    @contextlib.contextmanager
    def _locked(self, path: str) -> Iterator[None]:
        """Hold a lock that the kernel gives back when this process dies."""
        lock = Path(self._full("runs/locks")) / path.replace("/", "-")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _staged(self, path: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        target = Path(self._full(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(self._full("runs/staging")) / uuid.uuid4().hex
        staged.parent.mkdir(parents=True, exist_ok=True)
        try:
            with staged.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield staged, target
        finally:
            staged.unlink(missing_ok=True)


def _condition_failed(error: OSError) -> bool:
    """Whether an object store refused a conditional PUT; only AWS says which condition, which s3fs waits for."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in {"PreconditionFailed", "412", "ConditionalRequestConflict"}


def _sync_folder(folder: Path) -> None:
    _sync(folder)


def _sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
