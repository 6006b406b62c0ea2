"""What an S3 bucket holds, in memory: objects with versions, uploads in parts, and conditions decided under one lock.

The referee of races that a mock is not: of any number of conditional writes of one key at the same time, exactly those succeed
whose condition holds at the moment they are stored.
"""

import bisect
import hashlib
import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["Bucket", "Listed", "Objects", "Page", "RefusedError", "StoredObject", "Upload"]


class RefusedError(Exception):
    """An answer other than success: the HTTP status, S3's code, and a sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class StoredObject:
    """One version of an object.

    Attributes:
        version: its id; "null" where the bucket keeps no versions.
        data: its bytes; empty for a mark of deletion.
        etag: md5 of the bytes, or of the parts' md5s and their number, without quotes.
        modified: seconds since the epoch.
        checksum: the header and value that came with it, given back to those who ask for it.
        deleted: a mark of deletion and no object.
    """

    version: str
    data: bytes
    etag: str
    modified: float
    checksum: tuple[str, str] | None = None
    deleted: bool = False


@dataclass
class Upload:
    """An upload in parts that is under way: what each part's number holds."""

    key: str
    started: float
    parts: dict[int, StoredObject] = field(default_factory=dict)


@dataclass(frozen=True)
class Listed:
    """A row of a listing: an object, or a common prefix where `stored` is None."""

    name: str
    stored: StoredObject | None
    latest: bool = True


@dataclass(frozen=True)
class Page:
    """A part of a listing, and the name after which the next one begins; None where it is the last."""

    rows: tuple[Listed, ...]
    next_after: str | None


@dataclass
class Bucket:
    """The versions of each key, oldest first, and the uploads under way."""

    versioned: bool = False
    objects: dict[str, list[StoredObject]] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)


class Objects:
    """All buckets of an endpoint.

    Args:
        ignores_conditions: If-Match and If-None-Match change nothing, as on endpoints that do not know them.
    """

    def __init__(self, *, ignores_conditions: bool = False) -> None:
        self._ignores_conditions = ignores_conditions
        self._lock = threading.RLock()
        self._buckets: dict[str, Bucket] = {}
        self._ids = itertools.count(1)

    def create_bucket(self, name: str) -> None:
        """Make a bucket; one that is there stays as it is."""
        with self._lock:
            self._buckets.setdefault(name, Bucket())

    def bucket(self, name: str) -> Bucket:
        """The bucket of that name, or RefusedError."""
        with self._lock:
            if name not in self._buckets:
                raise RefusedError(404, "NoSuchBucket", "The specified bucket does not exist")
            return self._buckets[name]

    def buckets(self) -> list[str]:
        """All buckets' names."""
        with self._lock:
            return sorted(self._buckets)

    def put(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        checksum: tuple[str, str] | None = None,
        etag: str | None = None,
    ) -> StoredObject:
        """Store an object where its condition holds, or RefusedError."""
        digest = etag or hashlib.md5(data, usedforsecurity=False).hexdigest()
        with self._lock:
            holder = self.bucket(bucket)
            self._check(_latest(holder, key), if_none_match=if_none_match, if_match=if_match)
            version = f"v{next(self._ids):012d}" if holder.versioned else "null"
            stored = StoredObject(version, bytes(data), digest, time.time(), checksum)
            self._append(holder, key, stored)
            return stored

    def get(self, bucket: str, key: str, version: str | None = None) -> StoredObject:
        """An object, or RefusedError."""
        with self._lock:
            holder = self.bucket(bucket)
            there = [o for o in holder.objects.get(key, []) if not o.deleted and o.version == version]
            found = _latest(holder, key) if version is None else next(iter(there), None)
            if found is None:
                raise RefusedError(404, "NoSuchKey", "The specified key does not exist.")
            return found

    def delete(self, bucket: str, key: str, version: str | None = None) -> None:
        """Remove an object or one of its versions; nothing happens where there is none."""
        with self._lock:
            holder = self.bucket(bucket)
            if version is not None:
                kept = [o for o in holder.objects.get(key, []) if o.version != version]
                self._keep(holder, key, kept)
            elif holder.versioned:
                mark = StoredObject(f"v{next(self._ids):012d}", b"", "", time.time(), deleted=True)
                holder.objects.setdefault(key, []).append(mark)
            else:
                self._keep(holder, key, [o for o in holder.objects.get(key, []) if o.version != "null"])

    def page(self, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int) -> Page:
        """Objects and common prefixes by rising name, at most `limit`, from behind `after` on."""
        with self._lock:
            holder = self.bucket(bucket)
            names = sorted(key for key in holder.objects if _latest(holder, key) is not None)
            rows = _rolled_up(names, prefix=prefix, delimiter=delimiter, after=after)
            some = list(itertools.islice(rows, limit + 1))
            listed = tuple(Listed(n, None if rolled else _latest(holder, n)) for n, rolled in some[:limit])
            return Page(listed, listed[-1].name if len(some) > limit and listed else None)

    def versions(self, bucket: str, *, prefix: str) -> list[Listed]:
        """Every version and mark of deletion, by rising name and the newest first."""
        with self._lock:
            holder = self.bucket(bucket)
            return [
                Listed(key, stored, latest=stored is holder.objects[key][-1])
                for key in sorted(holder.objects)
                if key.startswith(prefix)
                for stored in reversed(holder.objects[key])
            ]

    def start_upload(self, bucket: str, key: str) -> str:
        """Begin an upload in parts and return its id."""
        with self._lock:
            name = f"upload-{next(self._ids)}"
            self.bucket(bucket).uploads[name] = Upload(key, time.time())
            return name

    def put_part(self, bucket: str, upload: str, number: int, data: bytes) -> StoredObject:
        """Store one part; one of the same number is replaced."""
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        with self._lock:
            part = StoredObject("null", bytes(data), digest, time.time())
            self.upload(bucket, upload).parts[number] = part
            return part

    def upload(self, bucket: str, upload: str) -> Upload:
        """An upload under way, or RefusedError."""
        with self._lock:
            found = self.bucket(bucket).uploads.get(upload)
            if found is None:
                raise RefusedError(404, "NoSuchUpload", "The specified multipart upload does not exist.")
            return found

    def uploads(self, bucket: str, *, prefix: str) -> list[tuple[str, Upload]]:
        """The uploads under way by their keys."""
        with self._lock:
            found = self.bucket(bucket).uploads.items()
            return sorted((pair for pair in found if pair[1].key.startswith(prefix)), key=lambda p: (p[1].key, p[0]))

    def complete(
        self,
        bucket: str,
        upload: str,
        parts: list[tuple[int, str]],
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
    ) -> StoredObject:
        """Join the parts named by number and etag into the object where its condition holds, or RefusedError."""
        with self._lock:
            held = self.upload(bucket, upload)
            if any(number not in held.parts or held.parts[number].etag != etag for number, etag in parts) or not parts:
                raise RefusedError(400, "InvalidPart", "One or more of the specified parts could not be found.")
            if [number for number, _ in parts] != sorted({number for number, _ in parts}):
                raise RefusedError(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
            together = b"".join(bytes.fromhex(etag) for _, etag in parts)
            etag = f"{hashlib.md5(together, usedforsecurity=False).hexdigest()}-{len(parts)}"
            data = b"".join(held.parts[number].data for number, _ in parts)
            stored = self.put(bucket, held.key, data, if_none_match=if_none_match, if_match=if_match, etag=etag)
            del self.bucket(bucket).uploads[upload]
            return stored

    def abort(self, bucket: str, upload: str) -> None:
        """Let go of an upload and its parts, or RefusedError."""
        with self._lock:
            self.upload(bucket, upload)
            del self.bucket(bucket).uploads[upload]

    def _check(self, there: StoredObject | None, *, if_none_match: str | None, if_match: str | None) -> None:
        if self._ignores_conditions:
            return
        if if_none_match is not None and there is not None:
            raise RefusedError(
                412, "PreconditionFailed", "At least one of the preconditions you specified did not hold."
            )
        if if_match is not None and there is None:
            raise RefusedError(404, "NoSuchKey", "The specified key does not exist.")
        if if_match is not None and there is not None and if_match.strip('"') != there.etag:
            raise RefusedError(
                412, "PreconditionFailed", "At least one of the preconditions you specified did not hold."
            )

    def _append(self, holder: Bucket, key: str, stored: StoredObject) -> None:
        kept = holder.objects.get(key, [])
        if not holder.versioned:
            kept = [o for o in kept if o.version != "null"]
        holder.objects[key] = [*kept, stored]

    def _keep(self, holder: Bucket, key: str, kept: list[StoredObject]) -> None:
        if kept:
            holder.objects[key] = kept
        else:
            holder.objects.pop(key, None)


def _latest(holder: Bucket, key: str) -> StoredObject | None:
    versions = holder.objects.get(key)
    return None if not versions or versions[-1].deleted else versions[-1]


def _rolled_up(names: list[str], *, prefix: str, delimiter: str, after: str) -> Iterator[tuple[str, bool]]:
    """Names under the prefix and behind `after`, those with a further delimiter as one common prefix each."""
    last = ""
    for name in _from(names, prefix):
        if not name.startswith(prefix):
            return
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        shown = name if cut < 0 else name[: cut + len(delimiter)]
        if shown > after and shown != last:
            last = shown
            yield shown, cut >= 0


def _from(names: list[str], prefix: str) -> Iterable[str]:
    return itertools.islice(names, bisect.bisect_left(names, prefix), None)
