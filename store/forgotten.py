"""What must never be ingested or shown again, as keyed hashes that say nothing without being asked.

`forgotten/key` is a random key of the store's own, `forgotten/tags.json` the tags under it. The file is swapped as a whole, so
that one read gives all of it, and no listing is trusted.
"""

import hashlib
import hmac
import json
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from store.errors import ArtifactError
from store.fingerprints import fingerprint
from store.layout import FORGOTTEN_KEY, FORGOTTEN_TAGS
from store.storage import Storage

__all__ = ["Forgotten", "Kind", "add_forgotten", "forgotten_key", "read_forgotten", "spot_of", "spots_around", "tag"]

Kind = Literal["photo", "listed", "face", "spot", "asked"]
"""What a tag is of: a photo's sha256, a listed photo's fingerprint, a face's id, a place in a photo, or what somebody asked to forget."""

_SPOT_PX = 8

_ROUNDS = 100


@dataclass(frozen=True)
class Forgotten:
    """The tags of a store, to be asked.

    Attributes:
        key: the store's own, None while nothing was forgotten.
        tags: 32 hex digits each.
    """

    key: bytes | None
    tags: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.tags)

    def has(self, kind: Kind, value: str) -> bool:
        """Whether this was forgotten: a photo's sha256, a listed fingerprint, a face's id in decimal digits, a spot."""
        return self.key is not None and bool(self.tags) and tag(self.key, kind, value) in self.tags

    def has_photo(self, row: Mapping[str, Any]) -> bool:
        """Whether a photo's row is of a forgotten photo: by its bytes, or by how it was listed.

        Args:
            row: photo_sha256, uri, size (or bytes), etag and mtime_ns, as tables of photos have them.
        """
        if not self:
            return False
        if row["photo_sha256"] and self.has("photo", row["photo_sha256"]):
            return True
        size = row["size"] if "size" in row else row["bytes"]
        listed = fingerprint(row["uri"], size=size or 0, etag=row["etag"], mtime_ns=row["mtime_ns"])
        return self.has("listed", listed)

    def has_face(self, row: Mapping[str, Any]) -> bool:
        """Whether a face's row is of a forgotten face: by its id, its photo's bytes, or its place in the photo.

        Args:
            row: face_id, photo_sha256 and box.
        """
        if not self:
            return False
        sha256 = row["photo_sha256"]
        return (
            self.has("face", str(row["face_id"]))
            or self.has("photo", sha256)
            or self.has("spot", spot_of(sha256, row["box"]))
        )


def tag(key: bytes, kind: Kind, value: str) -> str:
    """The first 32 hex digits of HMAC-SHA256 over what is forgotten."""
    return hmac.new(key, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:32]


def spot_of(photo_sha256: str, box: Sequence[float]) -> str:
    """Where in a photo a face is: its photo's sha256 and its centre, on a grid of 8 pixels.

    Args:
        photo_sha256: 64 hex digits.
        box: x1, y1, x2, y2 in pixels.
    """
    x, y = _cell(box)
    return f"{photo_sha256}:{x},{y}"


def spots_around(photo_sha256: str, box: Sequence[float]) -> list[str]:
    """The spot of a face and the eight around it: where the same face is found again, by whatever detector."""
    x, y = _cell(box)
    return [f"{photo_sha256}:{x + dx},{y + dy}" for dx in (-1, 0, 1) for dy in (-1, 0, 1)]


def _cell(box: Sequence[float]) -> tuple[int, int]:
    x1, y1, x2, y2 = (float(side) for side in box)
    return math.floor((x1 + x2) / 2 / _SPOT_PX), math.floor((y1 + y2) / 2 / _SPOT_PX)


def read_forgotten(storage: Storage) -> Forgotten:
    """The tags as they stand now.

    Raises:
        ArtifactError: there are tags and no key, or the file is not one of tags; nothing is answered unfiltered then.
    """
    if not storage.exists(FORGOTTEN_TAGS):
        return Forgotten(key=None, tags=frozenset())
    return Forgotten(key=_key(storage), tags=_tags(storage, storage.read(FORGOTTEN_TAGS)))


def forgotten_key(storage: Storage) -> bytes:
    """The store's key, made at first use."""
    if not storage.exists(FORGOTTEN_KEY):
        storage.create(FORGOTTEN_KEY, secrets.token_hex(32).encode())
    return _key(storage)


def add_forgotten(storage: Storage, tags: Iterable[str]) -> Forgotten:
    """Add tags, whoever else adds some at the same time; tags that are there change nothing.

    Raises:
        ArtifactError: the file kept changing, or is not one of tags.
    """
    key = forgotten_key(storage)
    for _ in range(_ROUNDS):
        before = storage.read(FORGOTTEN_TAGS) if storage.exists(FORGOTTEN_TAGS) else None
        there = _tags(storage, before) if before is not None else frozenset()
        together = there | frozenset(tags)
        if together == there:
            return Forgotten(key=key, tags=there)
        data = json.dumps({"format": 1, "tags": sorted(together)}, indent=0).encode()
        if storage.swap(FORGOTTEN_TAGS, data, expected=before):
            return Forgotten(key=key, tags=together)
    raise ArtifactError(f"{storage.uri_of(FORGOTTEN_TAGS)} changed {_ROUNDS} times while it was written; try again")


def _key(storage: Storage) -> bytes:
    text = storage.read(FORGOTTEN_KEY)
    try:
        key = bytes.fromhex(text.decode())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ArtifactError(f"{storage.uri_of(FORGOTTEN_KEY)} is not a key of 64 hex digits; restore it from a copy")
    return key


def _tags(storage: Storage, data: bytes) -> frozenset[str]:
    where = storage.uri_of(FORGOTTEN_TAGS)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{where} is not JSON: {error}; restore it from a copy") from error
    tags = document.get("tags") if isinstance(document, dict) and document.get("format") == 1 else None
    if not isinstance(tags, list) or not all(isinstance(t, str) and len(t) == 32 for t in tags):
        raise ArtifactError(f"{where} is not a list of tags in format 1; restore it from a copy")
    return frozenset(tags)
