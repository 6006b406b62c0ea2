"""Files under a prefix of a bucket: each one object, put in place by one PUT or one completed upload.

Which of several writers came first is decided by S3 alone, by conditions on the PUT. An answer may be lost although the write was
done; then what stands there decides.
"""

import io
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from store.errors import ArtifactError, RefusedError, StoreError, UnavailableError
from store.s3_objects import (
    copy_object,
    delete_objects,
    fetch_file,
    fetch_object,
    list_objects,
    look_up_object,
    put_object,
    put_parts,
    split_uri,
)
from store.s3_requests import ConditionFailedError, ask, code_of

__all__ = ["S3Files"]

_SEALS = ("manifest.json", "card.json", "checkpoint.json")
_ONE_PUT = 64 * 2**20
_SINGLE_WRITER = "LOOKALIKE_SINGLE_WRITER"

_NOBODYS_ETAGS = (f'"{"0" * 32}"', "0" * 32)

_tested: set[str] = set()


class S3Files:
    """Files under one prefix, addressed by relative paths with slashes.

    Args:
        uri: `s3://bucket` or `s3://bucket/prefix`.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._bucket, _ = split_uri(uri)

    def exists(self, path: str) -> bool:
        """Whether there is an object, or any under the path as under a folder."""
        uri = self._uri_of(path)
        if split_uri(uri)[1] and look_up_object(uri) is not None:
            return True
        return any(True for _ in list_objects(uri, self._folder(path), at_most=1))

    def size(self, path: str) -> int:
        """The object's bytes, or FileNotFoundError."""
        if (there := look_up_object(self._uri_of(path))) is None:
            raise FileNotFoundError(self._uri_of(path))
        return there.size

    def read(self, path: str) -> bytes:
        """The object's bytes, or FileNotFoundError."""
        return fetch_object(self._uri_of(path))[0]

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`; fewer where the object ends earlier."""
        if stop <= start:
            return b""
        uri = self._uri_of(path)
        bucket, key = split_uri(uri)
        try:
            return ask("get_object", uri, Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}").body
        except RefusedError as error:
            if code_of(error.__cause__)[1] == 416:
                return b""
            raise

    def chunks(self, path: str, chunk_bytes: int) -> Iterator[bytes]:
        """The object's bytes piece by piece, or FileNotFoundError; ArtifactError where it is replaced meanwhile."""
        uri = self._uri_of(path)
        bucket, key = split_uri(uri)
        if (there := look_up_object(uri)) is None:
            raise FileNotFoundError(uri)
        if there.size <= chunk_bytes:  # all of it, which its ETag vouches for
            yield from filter(None, [self.read(path)])
            return
        for start in range(0, there.size, chunk_bytes):
            wanted: dict[str, Any] = {"Range": f"bytes={start}-{min(start + chunk_bytes, there.size) - 1}"}
            try:
                yield ask("get_object", uri, Bucket=bucket, Key=key, IfMatch=there.etag, **wanted).body
            except ConditionFailedError as error:
                raise ArtifactError(f"{uri} was replaced while it was read; read it again") from error

    def stamp(self, path: str) -> str | None:
        """What changes whenever the object does; None where there is none."""
        there = look_up_object(self._uri_of(path))
        return None if there is None else f"{there.etag}-{there.size}"

    def modified_s(self, path: str) -> float | None:
        """When the object was written, in seconds since the epoch by S3's clock; None where there is none."""
        there = look_up_object(self._uri_of(path))
        return None if there is None or there.modified is None else there.modified.timestamp()

    def write(self, path: str, data: bytes) -> None:
        """Put the bytes in place in one step, whatever stood there."""
        if len(data) > _ONE_PUT:
            put_parts(self._uri_of(path), io.BytesIO(data), len(data))
        else:
            put_object(self._uri_of(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Put the bytes in place in one step unless an object stands there; False where one does.

        Always one PUT, because not every endpoint heeds conditions when parts are joined.
        """
        if _single_writer():
            return not self._is_object(path) and self._put_anyway(path, data)
        return self._put_where(path, data, before=None, IfNoneMatch="*")

    def swap(self, path: str, data: bytes, *, expected: bytes) -> bool:
        """Put the bytes in place in one step where the object still holds `expected`; False where it does not."""
        try:
            there, etag = fetch_object(self._uri_of(path))
        except FileNotFoundError:
            return False
        if there != expected:
            return False
        if _single_writer():
            return self._put_anyway(path, data)
        if self._put_where(path, data, before=expected, IfMatch=etag):
            return True
        if self._holds(path) != expected:
            return False
        return self._put_where(path, data, before=expected, IfMatch=etag.strip('"'))  # Ceph 16 compares the quotes too

    def names(self, path: str) -> list[str]:
        """The names of what stands directly under the path, sorted; none if there is nothing."""
        folder = self._folder(path)
        rows = list_objects(self._uri_of(path), folder, delimiter="/")
        return sorted({row.key[len(folder) :].rstrip("/") for row in rows} - {""})

    def remove(self, path: str) -> None:
        """Remove an object, or all under the path; first what makes a folder valid, so that no half of one is taken for whole."""
        folder, key = self._folder(path), split_uri(self._uri_of(path))[1]
        first = [f"{folder}{name}" for name in _SEALS] if folder else []
        there = [row.key for row in list_objects(self._uri_of(path), folder)]
        for seal in (seal for seal in first if seal in set(there)):
            delete_objects(self._uri, [seal])
        delete_objects(self._uri, chain([key] if key else [], (one for one in there if one not in first)))

    def download(self, path: str, target: Path) -> None:
        """The object into a file of this machine in one step, or FileNotFoundError."""
        fetch_file(self._uri_of(path), target)

    def upload(self, path: str, source: Path) -> None:
        """Put a copy of a file of this machine in place in one step, whatever stood there."""
        size = os.stat(source).st_size
        with source.open("rb") as file:
            if size > _ONE_PUT:
                put_parts(self._uri_of(path), file, size)
            else:
                put_object(self._uri_of(path), file.read())

    def adopt(self, path: str, source: Path) -> None:
        """Put a file of this machine in place in one step, and remove it here."""
        self.upload(path, source)
        source.unlink()

    def copy(self, source: str, target: str) -> None:
        """Put an object in a second place in one step, by S3's own copy, or FileNotFoundError."""
        copy_object(self._uri_of(source), self._uri_of(target))

    def check(self) -> None:
        """See that the endpoint decides conditional writes; asked once a process of each store.

        Raises:
            StoreError: it does not, and several writers would overwrite each other; the message says what to do.
        """
        if self._uri in _tested:
            return
        probe = f"runs/probe-{uuid.uuid4().hex}"
        fault = None if _single_writer() else self._fault_of_conditions(probe)
        self._put_anyway(probe, b"lookalike")
        delete_objects(self._uri, [split_uri(self._uri_of(probe))[1]])
        if fault is not None:
            raise StoreError(
                f"the endpoint of {self._uri} {fault}, so that two builds at once could overwrite each other: use one that heeds "
                f"If-None-Match and If-Match, or set {_SINGLE_WRITER}=1 and never run two builds of this store at once"
            )
        _tested.add(self._uri)

    def abort_leftover_uploads(self, path: str, *, older_than: timedelta) -> int:
        """Take back uploads in parts that nobody completed; returns how many there were."""
        before = datetime.now(UTC) - older_than
        aborted = 0
        for upload in list(self._uploads(path)):
            if upload["Initiated"] > before:
                continue
            try:
                ask(
                    "abort_multipart_upload",
                    self._uri,
                    Bucket=self._bucket,
                    Key=upload["Key"],
                    UploadId=upload["UploadId"],
                )
                aborted += 1
            except FileNotFoundError:  # completed or aborted meanwhile
                continue
        return aborted

    def remove_old_versions(self, path: str) -> int:
        """Remove for good what a bucket that keeps versions still holds of removed and replaced objects; returns how many."""
        gone = 0
        for key, version in list(self._old_versions(path)):
            ask("delete_object", f"s3://{self._bucket}/{key}", Bucket=self._bucket, Key=key, VersionId=version)
            gone += 1
        return gone

    def _put_where(self, path: str, data: bytes, *, before: bytes | None, **condition: Any) -> bool:
        """Whether the bytes were put there: by the answer, or by what stands there where S3 refuses or does not answer.

        A refusal does not say that this call's write was not done: it may have been sent twice, and the first answer lost.
        """
        try:
            put_object(self._uri_of(path), data, **condition)
        except ConditionFailedError:
            return self._holds(path) == data
        except UnavailableError:
            if (there := self._holds(path)) == before:
                raise
            return there == data
        return True

    def _put_anyway(self, path: str, data: bytes) -> bool:
        put_object(self._uri_of(path), data)
        return True

    def _holds(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    def _is_object(self, path: str) -> bool:
        return look_up_object(self._uri_of(path)) is not None

    def _fault_of_conditions(self, probe: str) -> str | None:
        """What the endpoint gets wrong, or None."""
        try:
            if not self.create(probe, b"first"):
                return "says that a new object is there already"
            if self.create(probe, b"second") or self.read(probe) != b"first":
                return "overwrites an object where only a new one may be made (If-None-Match)"
            if not self.swap(probe, b"third", expected=b"first"):
                return "refuses to replace an object that has not changed (If-Match)"
            if any(self._put_where(probe, b"fourth", before=b"third", IfMatch=wrong) for wrong in _NOBODYS_ETAGS):
                return "replaces an object that has changed (If-Match)"
        except RefusedError as error:
            if code_of(error.__cause__)[0] not in {"NotImplemented", "InvalidArgument", "InvalidRequest"}:
                raise
            return "does not know conditions on writes"
        return None

    def _uploads(self, path: str) -> Iterator[dict[str, Any]]:
        prefix = self._under(path)
        for fields in self._all_of("list_multipart_uploads", prefix, "KeyMarker", "UploadIdMarker"):
            yield from (one for one in fields.get("Uploads", []) if self._is_under(one["Key"], prefix))

    def _old_versions(self, path: str) -> Iterator[tuple[str, str]]:
        prefix = self._under(path)
        for fields in self._all_of("list_object_versions", prefix, "KeyMarker", "VersionIdMarker"):
            replaced = [one for one in fields.get("Versions", []) if not one["IsLatest"]]
            for one in (*replaced, *fields.get("DeleteMarkers", [])):
                if self._is_under(one["Key"], prefix):
                    yield one["Key"], one["VersionId"]

    def _all_of(self, method: str, prefix: str, *markers: str) -> Iterator[dict[str, Any]]:
        """The pages of a listing; none where the endpoint does not know what it lists, and so keeps none of it."""
        given: dict[str, Any] = {}
        while True:
            try:
                fields = ask(method, self._uri, Bucket=self._bucket, Prefix=prefix, **given).fields
            except RefusedError as error:
                if code_of(error.__cause__)[0] == "NotImplemented":
                    return
                raise
            yield fields
            if not fields["IsTruncated"]:
                return
            before, given = given, {name: fields[f"Next{name}"] for name in markers if fields.get(f"Next{name}")}
            if given in ({}, before):
                raise UnavailableError(f"{self._uri}: S3 says that the listing goes on, and not where; try again later")

    def _under(self, path: str) -> str:
        return split_uri(self._uri_of(path))[1]

    def _is_under(self, key: str, prefix: str) -> bool:
        return not prefix or key == prefix or key.startswith(f"{prefix}/")

    def _uri_of(self, path: str) -> str:
        return f"{self._uri}/{path}".rstrip("/")

    def _folder(self, path: str) -> str:
        key = split_uri(self._uri_of(path))[1]
        return f"{key}/" if key else ""


def _single_writer() -> bool:
    return os.environ.get(_SINGLE_WRITER) == "1"
