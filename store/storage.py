"""Files under one root, local or on S3: written whole or not at all.

The one class over fsspec. A local file is written under runs/staging, flushed, and moved into place; an object is one PUT.
"""

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import fsspec

from store.errors import ArtifactError, StoreError
from store.fingerprints import sha256_hex

__all__ = ["Storage", "decode_path", "encode_path", "is_local", "normalise_uri"]


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
    return encode_path(path)


def encode_path(path: str) -> str:
    """A path as text: unchanged where it is UTF-8, other bytes percent-encoded."""
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in path)


def decode_path(uri: str) -> str:
    """The path on disk that a local uri names: itself, or the one `encode_path` was given."""
    if "%" not in uri or os.path.lexists(uri):
        return uri
    return os.fsdecode(unquote_to_bytes(uri))


class Storage:
    """Files under one root, addressed by relative paths with slashes.

    Args:
        uri: a folder, or `s3://bucket/prefix`.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.uri = normalise_uri(uri)
        self.local = is_local(self.uri)
        self._fs: Any
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
            raise ArtifactError(
                f"{self.uri_of(path)} is missing from the store; build again to make it anew"
            ) from error
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

    def names(self, path: str = "") -> list[str]:
        """The names of what stands directly in a folder, sorted; none if there is no such folder."""
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
        """Write a small file and remove it.

        Raises:
            StoreError: the store cannot be written; the message says why.
        """
        probe = f"runs/probe-{uuid.uuid4().hex}"
        try:
            self.write(probe, b"lookalike")
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
        except FileExistsError:
            return False
        return True

    @contextlib.contextmanager
    def _staged(self, path: str, data: bytes) -> Any:
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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
