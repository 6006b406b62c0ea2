"""Faults of manifests that say something else, with hashes that fit."""

import json
import random
from collections.abc import Callable
from typing import Any

from store.fingerprints import canonical_json, sha256_hex
from store.storage import Storage

Fault = Callable[[Storage, random.Random], object]


def rewrite(storage: Storage, number: int, **changes: Any) -> None:
    """Write a manifest as if lookalike had: with a hash of its own."""
    path = f"versions/{number:06d}/manifest.json"
    document = json.loads(storage.read(path)) | changes
    del document["self_sha256"]
    document["self_sha256"] = sha256_hex(canonical_json(document))
    storage.write(path, json.dumps(document).encode())


def claims(change: Callable[[dict[str, Any]], dict[str, Any]], name: str) -> Fault:
    def fault(storage: Storage, rng: random.Random) -> None:
        number = rng.choice([1, 2])
        document = json.loads(storage.read(f"versions/{number:06d}/manifest.json"))
        rewrite(storage, number, **change(document))

    fault.__name__ = f"claims-{name}"
    return fault


def first_shard(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"shards": [document["shards"][0] | changes, *document["shards"][1:]]}


def other_counts(document: dict[str, Any]) -> dict[str, Any]:
    counts = document["counts"]
    return {"counts": counts | {"indexed": counts["indexed"] - 1, "failed": counts["failed"] + 1}}


def more_photos(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "photos": document["photos"] + 1,
        "counts": document["counts"] | {"failed": document["counts"]["failed"] + 1},
    }


def smaller_index(document: dict[str, Any]) -> dict[str, Any]:
    record = document["files"]["index.faiss"] | {"bytes": 7}
    return {"files": document["files"] | {"index.faiss": record}, "index": document["index"] | record}


CLAIMS = [
    claims(other_counts, "counts"),
    claims(more_photos, "photos"),
    claims(lambda d: {"faces": d["faces"] + 1}, "faces"),
    claims(lambda d: first_shard(d, photos=d["shards"][0]["photos"] + 1), "shard-photos"),
    claims(lambda d: first_shard(d, faces=d["shards"][0]["faces"] - 1), "shard-faces"),
    claims(lambda d: first_shard(d, name="0" * 32), "shard-name"),
    claims(lambda d: first_shard(d, embeddings_sha256="0" * 64), "shard-hash"),
    claims(lambda d: {"shards": d["shards"][1:]}, "shard-left-out"),
    claims(lambda d: {"content_sha256": "0" * 64}, "content"),
    claims(lambda d: {"version": d["version"] + 1}, "version"),
    claims(lambda d: {"parent": 9}, "parent"),
    claims(lambda d: {"build": "another"}, "build"),
    claims(lambda d: {"encoder": d["encoder"] | {"id": "e" * 32}}, "encoder"),
    claims(lambda d: {"encoder": d["encoder"] | {"dimension": 16}}, "dimension"),
    claims(lambda d: {"contract": d["contract"] | {"id": "c" * 32}}, "contract"),
    claims(smaller_index, "bytes"),
]
