"""A build by the steps that the tasks call, without Prefect, the detector replaced by a stored result.

    python -m benchmarks.faults.small_build STORE SOURCE STORED [--without GUARD ...]

STORED is a folder with `photos.parquet`, `faces.parquet` and `embeddings.parquet` of every photo that SOURCE may hold, as
the real detector and a real encoder made them once (`base.py`).
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.faults.guards import remove_guards
from store.layout import open_store
from store.schemas import FACES, LISTING, PHOTOS, embeddings_schema, from_parquet
from store.shards import commit_embeddings, commit_shard, read_faces, read_photos
from store.storage import Storage
from tasks.steps.check_version import check_version
from tasks.steps.contract import Contract
from tasks.steps.find_faces import find_faces, shard_of
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import BuildPlan, discard_plan, plan_build
from tasks.steps.publish_version import publish_version
from tasks.steps.resolve_encoder import EncoderRef
from tasks.steps.write_index import write_index

__all__ = [
    "SHARD_PHOTOS",
    "Stored",
    "build",
    "commit_first_shard",
    "commit_stored_shard",
    "draft_version",
    "fail_photos",
    "load_stored",
    "main",
    "publish_version",
]

Row = dict[str, Any]
SHARD_PHOTOS = 4


@dataclass(frozen=True)
class Stored:
    """What detector and encoder said once: photos' rows by uri, faces' rows by the photo's hash, vectors by face id."""

    photos: dict[str, Row]
    faces: dict[str, list[Row]]
    vectors: dict[int, list[float]]
    encoder: EncoderRef


@lru_cache(maxsize=1)
def load_stored(folder: str) -> Stored:
    """Read the stored result."""
    at = Path(folder)
    faces: dict[str, dict[int, Row]] = {}  # a photo and its copy may stand in two shards
    for row in pq.read_table(at / "faces.parquet").to_pylist():
        faces.setdefault(row["photo_sha256"], {})[row["face_id"]] = row
    vectors = pq.read_table(at / "embeddings.parquet").to_pylist()
    photos = pq.read_table(at / "photos.parquet").to_pylist()
    return Stored(
        photos={row["uri"]: row for row in photos},
        faces={digest: list(rows.values()) for digest, rows in faces.items()},
        vectors={row["face_id"]: row["embedding"] for row in vectors},
        encoder=EncoderRef(**json.loads((at / "encoder.json").read_text())),
    )


def build(store: str, source: str, stored: str, *, search: bool = False) -> int | None:
    """Plan, commit shards, write, check and publish; the version's number, None where nothing was to be done."""
    drafted = draft_version(store, source, stored, search=search)
    if drafted is None:
        return None
    draft, plan = drafted
    return publish_version(draft, store=store, plan=plan)


def draft_version(store: str, source: str, stored: str, *, search: bool = False) -> tuple[Any, BuildPlan] | None:
    """All of a build but its last step: the checked draft and the plan, None where nothing was to be done.

    With `search` the photos are read and searched for faces for real.
    """
    known, contract = load_stored(stored), Contract()
    listed = list_photos(source, store=store)
    plan = plan_build(listed, store=store, contract=contract, encoder=known.encoder.id, shard_photos=SHARD_PHOTOS)
    if not plan.needed:
        discard_plan(plan, store=store)
        return None
    storage = open_store(store, create=True)
    for request in plan.requests:
        if search:
            find_faces(request, store=store, contract=contract)
            continue
        data = storage.read(storage.path_of(request.uri), sha256=request.sha256)
        listed_rows = from_parquet(data, LISTING, where=request.uri).to_pylist()
        commit_stored_shard(storage, known, contract.id, shard_of(request), listed_rows)
    for ref in (*plan.requests, *plan.finished, *plan.kept):
        if shard_of(ref) not in plan.embedded:
            _embed(storage, known, contract.id, shard_of(ref))
    draft = write_index(plan, store=store, contract=contract, encoder=known.encoder)
    return check_version(draft, store=store).draft, plan


def commit_first_shard(store: str, source: str, known: Stored, *, waits: int | None) -> None:
    """Commit the first shard of a plan that has a face, and nothing more, once somebody has closed the other end of `waits`."""
    contract = Contract()
    listed = list_photos(source, store=store)
    plan = plan_build(listed, store=store, contract=contract, encoder=known.encoder.id, shard_photos=SHARD_PHOTOS)
    storage = open_store(store, create=True)
    for request in (*plan.requests, *plan.finished, *plan.kept):
        if request in plan.kept:
            names = read_photos(storage, contract=contract.id, shard=shard_of(request)).column("uri").to_pylist()
            rows = [row for row in known.photos.values() if row["uri"] in names]
        else:
            rows = from_parquet(storage.read(storage.path_of(request.uri)), LISTING, where=request.uri).to_pylist()
        if any(known.photos[row["uri"]]["status"] in {"indexed", "failed"} for row in rows):  # failed: by `fail_photos`
            break
    if waits is not None:
        os.read(waits, 1)
    commit_stored_shard(storage, known, contract.id, shard_of(request), rows)


def fail_photos(known: Stored) -> None:
    """Let every photo with a face be unreadable, in this process for good."""
    for row in known.photos.values():
        if row["status"] == "indexed":
            row |= {"status": "failed", "reason": "cannot be read: OSError", "num_faces": 0, "photo_sha256": None}


def commit_stored_shard(storage: Storage, known: Stored, contract: str, shard: str, listed: list[Row]) -> None:
    """Commit a shard as `find_faces` would, its rows taken from the stored result."""
    photos = [known.photos[row["uri"]] | {name: row[name] for name in ("etag", "mtime_ns")} for row in listed]
    commit_shard(
        storage,
        contract=contract,
        shard=shard,
        photos=pa.Table.from_pylist(photos, schema=PHOTOS),
        faces=pa.Table.from_pylist(list(_faces_of(known, photos)), schema=FACES),
    )


def _faces_of(known: Stored, photos: list[Row]) -> Iterator[Row]:
    seen: set[str] = set()
    for photo in photos:
        if photo["status"] == "indexed" and photo["photo_sha256"] not in seen:
            seen.add(photo["photo_sha256"])
            yield from (face | {"uri": photo["uri"]} for face in known.faces[photo["photo_sha256"]])


def _embed(storage: Storage, known: Stored, contract: str, shard: str) -> None:
    ids = read_faces(storage, contract=contract, shard=shard, columns=["face_id"]).column("face_id").to_pylist()
    schema = embeddings_schema(known.encoder.dimension)
    rows = [{"face_id": identity, "embedding": known.vectors[identity]} for identity in ids]
    table = pa.Table.from_pylist(rows, schema=schema)
    commit_embeddings(storage, encoder=known.encoder.id, shard=shard, table=table, dimension=known.encoder.dimension)


def main() -> int:
    """Build once and print the number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("source")
    parser.add_argument("stored")
    parser.add_argument("--without", action="append", default=[], metavar="GUARD")
    args = parser.parse_args()
    remove_guards(args.without)
    print(json.dumps({"version": build(args.store, args.source, args.stored)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
