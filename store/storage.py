"""Files under one root, local or on S3: written whole or not at all.

What a folder of this machine does is in `local_files.py`, what S3 does in `s3_files.py`; this is what the rest of lookalike sees of
both, with paths, hashes and errors that are the same for both.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote_to_bytes

from store.errors import ArtifactError, StoreError
from store.fingerprints import sha256_hex
from store.local_files import LocalFiles
from store.s3_files import S3Files

__all__ = ["Storage", "decode_path", "encode_path", "is_local", "normalise_uri"]

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

    On S3 every call makes a bounded number of requests. What goes wrong is a StoreError where it will go wrong again, and an
    UnavailableError where the same call may succeed later; each is one sentence that names the uri.

    Args:
        uri: a folder, or `s3://bucket/prefix`.

    Raises:
        StoreError: it is another url.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.uri = normalise_uri(uri)
        self.local = is_local(self.uri)
        if not self.local and not self.uri.startswith("s3://"):
            raise StoreError(f"{self.uri} cannot be a store: give a folder or an s3:// prefix with --store")
        self._files: LocalFiles | S3Files = LocalFiles(decode_path(self.uri)) if self.local else S3Files(self.uri)

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

    def local_path(self, path: str) -> Path | None:
        """Where the file lies on this machine; None where it does not."""
        return self._files.path_of(path) if isinstance(self._files, LocalFiles) else None

    def exists(self, path: str) -> bool:
        """Whether the file or folder is there."""
        return self._files.exists(path)

    def size(self, path: str) -> int:
        """The file's bytes.

        Raises:
            ArtifactError: it is missing.
        """
        try:
            return self._files.size(path)
        except FileNotFoundError as error:
            raise self._missing(path) from error

    def read(self, path: str, *, sha256: str | None = None) -> bytes:
        """The file's bytes.

        Raises:
            ArtifactError: the file is missing, or its bytes are not those of `sha256`.
        """
        got = ""
        for _ in range(self._reads):
            try:
                data = self._files.read(path)
            except FileNotFoundError as error:
                raise self._missing(path) from error
            if sha256 is None or (got := sha256_hex(data)) == sha256:
                return data
        raise self._changed(path, got, sha256 or "")

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`, fewer where the file ends earlier; no more than their number is checked.

        Raises:
            ArtifactError: the file is missing.
        """
        try:
            return self._files.read_range(path, start, stop)
        except FileNotFoundError as error:
            raise self._missing(path) from error

    def chunks(self, path: str, *, chunk_bytes: int = 8 * 2**20) -> Iterator[bytes]:
        """The file's bytes piece by piece, so that no file needs to fit into memory; on S3 all of one object.

        Raises:
            ArtifactError: the file is missing, or was replaced while it was read.
        """
        try:
            yield from self._files.chunks(path, chunk_bytes)
        except FileNotFoundError as error:
            raise self._missing(path) from error

    def stamp(self, path: str) -> str | None:
        """What changes whenever the file does, at the cost of one small question; None where there is no file."""
        return self._files.stamp(path)

    def modified_s(self, path: str) -> float | None:
        """When the file was last written, in seconds since the epoch by the storage's own clock; None where there is no file."""
        return self._files.modified_s(path)

    def download(self, path: str, target: Path, *, sha256: str | None = None) -> None:
        """A large file into a file of this machine, flushed and put in place in one step; memory does not follow its size.

        Args:
            path: of the file.
            target: what stands there is replaced; its folder must exist.
            sha256: of the file, where it is known.

        Raises:
            ArtifactError: the file is missing, or its bytes are not those of `sha256`; nothing is at the target then.
        """
        got = ""
        for _ in range(self._reads):
            try:
                self._files.download(path, target)
            except FileNotFoundError as error:
                raise self._missing(path) from error
            if sha256 is None or (got := _sha256_of(target)) == sha256:
                return
            target.unlink()
        raise self._changed(path, got, sha256 or "")

    def write(self, path: str, data: bytes) -> None:
        """Put the bytes in place in one step, whatever stood there."""
        self._files.write(path, data)

    def upload(self, path: str, source: Path) -> None:
        """Put a copy of a large file of this machine in place in one step, whatever stood there."""
        self._files.upload(path, source)

    def adopt(self, path: str, source: Path) -> None:
        """Put a large flushed file of this machine in place in one step, whatever stood there; it is gone from where it was."""
        self._files.adopt(path, source)

    def copy(self, source: str, target: str) -> None:
        """Put a file in a second place in one step, without its bytes passing through: a hard link, or the service's own copy.

        Raises:
            ArtifactError: there is no such file.
        """
        try:
            self._files.copy(source, target)
        except FileNotFoundError as error:
            raise self._missing(source) from error

    def create(self, path: str, data: bytes) -> bool:
        """Put the bytes in place in one step unless a file stands there already.

        On S3 an answer may be lost although the write was done, and the write sent again is refused then. So a refused call
        looks at what stands there, and takes equal bytes for its own. Where it matters which of several callers made a file,
        each must give bytes that no other gives (a uuid).
        After an UnavailableError nothing stood there, but a request that was under way may still be done later.

        Returns:
            True when this call made the file, False when it was there.
        """
        return self._files.create(path, data)

    def swap(self, path: str, data: bytes, *, expected: bytes | None) -> bool:
        """Put the bytes in place in one step where the file still holds `expected`; None wants no file there.

        Of several callers that expect the same and bring bytes of their own, one succeeds. On S3 a refused call takes equal
        bytes for its own, as `create` does: of two callers that bring the same, as a number for CURRENT, both are told that
        they did it, and each has what it wanted. A file that was changed and changed back holds what was expected.

        Returns:
            True when this call put them there, False when the file holds something else.
        """
        if expected is None:
            return self.create(path, data)
        return self._files.swap(path, data, expected=expected)

    def names(self, path: str = "") -> list[str]:
        """The names of what stands directly in a folder, sorted; none if there is no such folder.

        Raises:
            NotADirectoryError: a file of this machine stands there.
        """
        return self._files.names(path)

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all it holds; nothing happens if there is none.

        Of a folder, manifest.json, card.json and checkpoint.json go first: a remove that is killed leaves no folder that
        looks whole, and the same call removes the rest.
        """
        self._files.remove(path)

    def check_writable(self) -> None:
        """Make a small file, exclusively as everything that commits is made, and remove it.

        On S3, once a process, also see that the endpoint decides conditional writes.

        Raises:
            StoreError: the store cannot be written, or not by several; the message says why.
        """
        try:
            self._files.check()
        except OSError as error:
            raise StoreError(
                f"the store {self.uri} cannot be written ({type(error).__name__}: {error}): "
                "give a folder or an s3:// prefix you may write to with --store"
            ) from error

    def abort_leftover_uploads(self, path: str = "", *, older_than: timedelta) -> int:
        """Take back uploads under a path that were begun so long ago and never completed; returns how many there were.

        On this machine there are none.
        """
        return (
            self._files.abort_leftover_uploads(path, older_than=older_than) if isinstance(self._files, S3Files) else 0
        )

    def remove_old_versions(self, path: str = "") -> int:
        """Remove for good what a bucket that keeps versions still holds of removed and replaced files; returns how many.

        On this machine there are none.
        """
        return self._files.remove_old_versions(path) if isinstance(self._files, S3Files) else 0

    def _missing(self, path: str) -> ArtifactError:
        return ArtifactError(f"{self.uri_of(path)} is missing from the store; build again to make it anew")

    def _changed(self, path: str, got: str, recorded: str) -> ArtifactError:
        return ArtifactError(
            f"{self.uri_of(path)} has changed: its sha256 is {got[:12]}…, recorded was {recorded[:12]}…; it is not used"
        )

    @property
    def _reads(self) -> int:
        """How often bytes of another hash are read; what came wrong from S3 may come right."""
        return 1 if self.local else 3


def _sha256_of(file: Path) -> str:
    with file.open("rb") as read:
        return hashlib.file_digest(read, "sha256").hexdigest()
