"""Faults of files that say something else, with manifests that fit."""

import io
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from store.fingerprints import sha256_hex
from store.index_file import build_exact_index, flat_vectors, load_index
from store.storage import Storage
from store.versions import read_version
from tests.tasks.steps.planted.manifests import rewrite

Fault = Callable[[Storage, random.Random], object]


def put(storage: Storage, number: int, name: str, data: bytes) -> None:
    """Replace a version's file and record its new hash."""
    document = json.loads(storage.read(f"versions/{number:06d}/manifest.json"))
    record = {"bytes": len(data), "sha256": sha256_hex(data)}
    storage.write(f"versions/{number:06d}/{name}", data)
    index = document["index"] | record if name == "index.faiss" else document["index"]
    rewrite(storage, number, files=document["files"] | {name: record}, index=index)


def reindexed(change: Callable[[Any, Any], tuple[Any, Any]], name: str) -> Fault:
    def fault(storage: Storage, rng: random.Random) -> None:
        index = load_index(storage.read("versions/000002/index.faiss"), where="x")
        found = flat_vectors(index)  # it looks into the index
        assert found is not None
        put(storage, 2, "index.faiss", build_exact_index(*change(found[0].copy(), found[1].copy())))

    fault.__name__ = f"index-{name}"
    return fault


def raw_index(ids: Any, vectors: Any) -> bytes:
    import faiss

    index = faiss.IndexIDMap(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(np.ascontiguousarray(vectors), ids)
    return bytes(faiss.serialize_index(index))


def unit_and_long(storage: Storage, rng: random.Random) -> None:
    found = flat_vectors(load_index(storage.read("versions/000001/index.faiss"), where="x"))
    assert found is not None
    put(storage, 1, "index.faiss", raw_index(found[0], found[1] * 1.5))


def duplicate_ids(storage: Storage, rng: random.Random) -> None:
    found = flat_vectors(load_index(storage.read("versions/000001/index.faiss"), where="x"))
    assert found is not None
    ids = found[0].copy()
    ids[1] = ids[0]
    put(storage, 1, "index.faiss", raw_index(ids, found[1]))


def index_of_another_version(storage: Storage, rng: random.Random) -> None:
    put(storage, 2, "index.faiss", storage.read("versions/000001/index.faiss"))


def table_of_another_version(storage: Storage, rng: random.Random) -> None:
    name = rng.choice(["photos.parquet", "faces.parquet"])
    put(storage, 1, name, storage.read(f"versions/000002/{name}"))


def no_table(storage: Storage, rng: random.Random) -> None:
    put(storage, 1, rng.choice(["photos.parquet", "faces.parquet"]), rng.randbytes(800))


def rows(name: str, change: Callable[[list[dict[str, Any]]], None], what: str) -> Fault:
    """Change the rows of a version's table, and record its new hash."""

    def fault(storage: Storage, rng: random.Random) -> None:
        number = rng.choice([1, 2])
        table = pq.read_table(io.BytesIO(storage.read(f"versions/{number:06d}/{name}")))
        listed = table.to_pylist()
        change(listed)
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(listed, schema=table.schema), sink)
        put(storage, number, name, sink.getvalue())

    fault.__name__ = f"rows-{what}"
    return fault


def shard_rows(kind: str, change: Callable[[list[dict[str, Any]]], None], what: str) -> Fault:
    """Change the rows of a shard's table, and record its new hash in every version."""

    def fault(storage: Storage, rng: random.Random) -> None:
        manifest = read_version(storage, 1).manifest
        shard = rng.choice([s.name for s in manifest.shards if s.faces > 1])
        owner = manifest.encoder.id if kind == "embeddings" else manifest.contract.id
        path = f"{kind}/{owner}/{shard}.parquet"
        table = pq.read_table(io.BytesIO(storage.read(path)))
        listed = table.to_pylist()
        change(listed)
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(listed, schema=table.schema), sink)
        storage.write(path, sink.getvalue())
        for number in (1, 2):
            document = json.loads(storage.read(f"versions/{number:06d}/manifest.json"))
            for record in document["shards"]:
                if record["name"] == shard:
                    record[f"{kind}_sha256"] = sha256_hex(sink.getvalue())
                    if kind != "embeddings":
                        record[kind] = len(listed)
            rewrite(storage, number, shards=document["shards"])

    fault.__name__ = f"shard-{kind}-{what}"
    return fault


def scale(listed: list[dict[str, Any]]) -> None:
    listed[0]["embedding"] = [2 * x for x in listed[0]["embedding"]]


def turn(listed: list[dict[str, Any]]) -> None:
    listed[0]["embedding"] = [-x for x in listed[0]["embedding"]]


def set_first(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda listed: listed[0].update(changes)


CONSISTENT = [
    reindexed(lambda ids, vectors: (ids, -vectors), "negated"),
    reindexed(lambda ids, vectors: (ids, np.roll(vectors, 1, axis=0)), "shifted"),
    reindexed(lambda ids, vectors: (ids + 1, vectors), "other-ids"),
    reindexed(lambda ids, vectors: (ids[1:], vectors[1:]), "one-less"),
    unit_and_long,
    duplicate_ids,
    index_of_another_version,
    table_of_another_version,
    no_table,
    rows("photos.parquet", lambda r: r.pop(), "photo-lost"),
    rows("photos.parquet", lambda r: r.reverse(), "photos-order"),
    rows("photos.parquet", lambda r: r.append(r[-1]), "photo-twice"),
    rows("photos.parquet", set_first(status="failed"), "status"),
    rows("photos.parquet", set_first(photo_sha256="0" * 64), "photo-hash"),
    rows("photos.parquet", set_first(shard="0" * 32), "photo-shard"),
    rows("photos.parquet", set_first(num_faces=5), "num-faces"),
    rows("faces.parquet", lambda r: r.pop(), "face-lost"),
    rows("faces.parquet", lambda r: r.append(r[-1]), "face-twice"),
    rows("faces.parquet", set_first(photo_sha256="0" * 64), "face-photo"),
    rows("faces.parquet", set_first(box=[0.0, 0.0, 9.0, 9.0]), "face-box"),
    rows("faces.parquet", set_first(shard="0" * 32), "face-shard"),
    shard_rows("embeddings", scale, "not-unit"),
    shard_rows("embeddings", turn, "turned"),
    shard_rows("embeddings", lambda r: r.pop(), "one-less"),
    shard_rows("embeddings", set_first(face_id=1), "other-face"),
    shard_rows("faces", lambda r: r.pop(), "one-less"),
    shard_rows("faces", set_first(face_id=1), "other-face"),
    shard_rows("photos", set_first(num_faces=7), "num-faces"),
    shard_rows("photos", set_first(photo_sha256="0" * 64), "hash"),
    shard_rows("photos", set_first(status="lost"), "status"),
]
