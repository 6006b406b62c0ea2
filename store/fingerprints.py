"""The hashes that name things: fingerprints, shards, faces, contracts.

All of them are part of format 1 and never change.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence

__all__ = [
    "canonical_json",
    "content_sha256",
    "face_id",
    "face_ids",
    "fingerprint",
    "sha256_hex",
    "shard_name",
    "short_hash",
]


def sha256_hex(data: bytes) -> str:
    """SHA-256 of the bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys, no blanks and ASCII only: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def short_hash(value: object) -> str:
    """The first 32 hex digits of SHA-256 over the value's canonical JSON."""
    return sha256_hex(canonical_json(value))[:32]


def fingerprint(uri: str, *, size: int, etag: str | None, mtime_ns: int | None) -> str:
    """What a photo looked like when it was listed: SHA-256 of uri, size and etag, or mtime where there is no etag.

    Args:
        uri: the photo's normalised uri.
        size: bytes.
        etag: the object store's, or None.
        mtime_ns: modification time in nanoseconds since the epoch, or None.
    """
    return sha256_hex(canonical_json([uri, size, etag if etag is not None else mtime_ns]))


def shard_name(*, contract: str, attempt: int, fingerprints: Iterable[str]) -> str:
    """The name that determines a shard's rows: 32 hex digits over contract, attempt and the sorted fingerprints."""
    return short_hash([contract, attempt, sorted(fingerprints)])


def face_id(photo_sha256: str, box: Sequence[float]) -> int:
    """The face's id, 63 bits: SHA-256 over the photo's hash and its box in whole pixels.

    Args:
        photo_sha256: 64 hex digits.
        box: x1, y1, x2, y2 in pixels of the full-size upright photo; rounded half to even.
    """
    rounded = struct.pack("<4i", *(round(float(side)) for side in box))
    digest = hashlib.sha256(bytes.fromhex(photo_sha256) + rounded).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def face_ids(photo_sha256: str, boxes: Sequence[Sequence[float]]) -> list[int]:
    """The ids of one photo's faces in the order given; an id that is taken already in the photo adds 1."""
    ids: list[int] = []
    for box in boxes:
        candidate = face_id(photo_sha256, box)
        while candidate in ids:
            candidate = (candidate + 1) & (2**63 - 1)
        ids.append(candidate)
    return ids


def content_sha256(photos: Iterable[tuple[str, str | None, str]], face_ids_sorted: Iterable[int]) -> str:
    """What a version holds, whatever the number of workers, kills and times: 64 hex digits.

    Args:
        photos: (uri, photo_sha256, status) of every photo, sorted by uri.
        face_ids_sorted: the ids of every face in the index, ascending.
    """
    digest = hashlib.sha256()
    for row in photos:
        digest.update(canonical_json(row) + b"\n")
    for identity in face_ids_sorted:
        digest.update(b"%d\n" % identity)
    return digest.hexdigest()
