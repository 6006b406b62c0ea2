"""A version without those who were forgotten: new shards, tables and index under a raised revision, put in place by one swap."""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from store.content_hash import table_content_sha256
from store.errors import ArtifactError
from store.fingerprints import sha256_hex, short_hash
from store.forgotten import Forgotten, tag
from store.index_choice import IndexBudget
from store.layout import embeddings_path, faces_path, photos_path, version_file, version_folder
from store.manifest import CHANGES, FileRecord, Manifest, ShardRecord
from store.schemas import (
    FACES,
    PHOTOS,
    STATUSES,
    VERSION_FACES,
    VERSION_PHOTOS,
    embeddings_schema,
    to_parquet,
)
from store.shards import commit_shard, read_faces, read_photos
from store.storage import Storage
from store.version_files import FACES_FILE, INDEX_FILE, PHOTOS_FILE, read_faces_of, read_photos_of
from store.versions import MANIFEST, PublishedVersion, measure
from tasks.steps.fill_index import BuiltIndex, build_as_recorded
from tasks.steps.forgotten_rows import without_forgotten
from tasks.steps.report import write_report
from tasks.steps.stored_faces import open_faces
from tasks.steps.workroom import workroom

__all__ = ["replace_version"]

Row = dict[str, Any]

_TRIES = 100
_FIRST = PHOTOS_FILE  # made exclusively: who makes it has begun the revision


def replace_version(storage: Storage, version: PublishedVersion, forgotten: Forgotten) -> bool:
    """Put a revision without the forgotten rows in the version's place; old files stay until somebody sweeps them.

    Returns:
        False where somebody else replaced the version meanwhile.

    Raises:
        ArtifactError: a file of the version is not what its manifest says, or does not read back as it was written.
    """
    old = version.manifest
    path = f"{version_folder(version.number)}/{MANIFEST}"
    before = storage.read(path)
    tables = read_photos_of(storage, version), read_faces_of(storage, version)
    records = {shard.name: _replace_shard(storage, shard, old, forgotten) for shard in old.shards}
    name_of = {name: record.name for name, record in records.items() if record}
    photos, faces = without_forgotten(tables[0].to_pylist(), tables[1].to_pylist(), forgotten)
    for row in (*photos, *faces):
        row["shard"] = name_of[row["shard"]]
    shards = sorted((record for record in records.values() if record), key=lambda record: record.name)
    with workroom(storage) as room:
        built, files, manifest = _files(storage, old, photos, faces, shards, room)
        manifest = _write(storage, version, manifest, built, files)
    return storage.swap(path, manifest.to_json(), expected=before)


def _replace_shard(
    storage: Storage, record: ShardRecord, manifest: Manifest, forgotten: Forgotten
) -> ShardRecord | None:
    """The record of the shard that takes this one's place: itself where nobody in it was forgotten, None where nothing is left."""
    contract, old = manifest.contract.id, record.name
    photos = read_photos(storage, contract=contract, shard=old).to_pylist()
    faces = read_faces(storage, contract=contract, shard=old).to_pylist()
    kept_photos, kept_faces = without_forgotten(photos, faces, forgotten)
    if len(kept_photos) == len(photos) and len(kept_faces) == len(faces):
        return record
    if not kept_photos:
        return None
    new = _name_without(old, photos, faces, kept_photos, kept_faces, forgotten)
    kept_ids = {row["face_id"] for row in kept_faces}
    for encoder in storage.names("embeddings"):
        _replace_embeddings(storage, encoder, old, new, kept_ids)
    commit_shard(
        storage,
        contract=contract,
        shard=new,
        photos=pa.Table.from_pylist(kept_photos, schema=PHOTOS),
        faces=pa.Table.from_pylist(kept_faces, schema=FACES),
    )
    return ShardRecord(
        name=new,
        photos=len(kept_photos),
        faces=len(kept_faces),
        photos_sha256=sha256_hex(storage.read(photos_path(contract, new))),
        faces_sha256=sha256_hex(storage.read(faces_path(contract, new))),
        embeddings_sha256=sha256_hex(storage.read(embeddings_path(manifest.encoder.id, new))),
    )


def _name_without(
    old: str,
    photos: Sequence[Row],
    faces: Sequence[Row],
    kept_photos: Sequence[Row],
    kept_faces: Sequence[Row],
    forgotten: Forgotten,
) -> str:
    """The name of the shard that is left, which follows from the old name and from who was taken out."""
    assert forgotten.key is not None  # noqa: S101  rows were taken out
    there, ids = {row["uri"] for row in kept_photos}, {row["face_id"] for row in kept_faces}
    gone = [tag(forgotten.key, "listed", row["uri"]) for row in photos if row["uri"] not in there]
    gone += [tag(forgotten.key, "face", str(row["face_id"])) for row in faces if row["face_id"] not in ids]
    return short_hash(["rewritten", old, sorted(gone)])


def _replace_embeddings(storage: Storage, encoder: str, old: str, new: str, kept_ids: set[int]) -> None:
    path = embeddings_path(encoder, old)
    if not storage.exists(path):
        return
    try:
        table = pq.read_table(io.BytesIO(storage.read(path)))
        dimension = table.schema.field("embedding").type.list_size
    except (OSError, KeyError, AttributeError, pa.ArrowException) as error:
        raise ArtifactError(f"{storage.uri_of(path)} cannot be read as embeddings: {error}") from error
    kept = table.filter(pa.array([i in kept_ids for i in table.column("face_id").to_pylist()], pa.bool_()))
    storage.create(embeddings_path(encoder, new), to_parquet(kept, embeddings_schema(dimension)))


def _files(
    storage: Storage,
    old: Manifest,
    photos: list[Row],
    faces: list[Row],
    shards: list[ShardRecord],
    room: Path,
) -> tuple[BuiltIndex, dict[str, bytes], Manifest]:
    """The index and the other files of the revision, and its manifest, complete but for its revision.

    It stands whole, whatever it was kept as: nothing of the forgotten may lie among what counts no more.
    Held-out queries are left behind: they were made of crops, and may be of those who were forgotten.
    """
    photo_table = pa.Table.from_pylist(photos, schema=VERSION_PHOTOS)
    face_table = pa.Table.from_pylist(faces, schema=VERSION_FACES)
    recorded = old.model_copy(update={"shards": shards})
    opened = open_faces(storage, face_table, encoder=old.encoder.id, dimension=old.encoder.dimension, recorded=recorded)
    built = build_as_recorded(old.index, opened, folder=room)
    files = {
        PHOTOS_FILE: to_parquet(photo_table, VERSION_PHOTOS),
        FACES_FILE: to_parquet(face_table, VERSION_FACES),
    }
    counts = Counter(row["status"] for row in photos)
    counts["forgotten"] = old.photos - len(photos)
    record = built.record(IndexBudget.of(old.index.budget))
    manifest = recorded.model_copy(
        update={
            "index": record.model_copy(update={"budget": old.index.budget}),
            "files": _records(built, files),
            "changes": None,
            "requires": [one for one in old.requires if one != CHANGES],
            "counts": {status: counts.get(status, 0) for status in STATUSES},
            "faces": len(faces),
            "content_sha256": table_content_sha256(photo_table, opened.ids),
        }
    )
    files["report.html"] = write_report(manifest, faces=face_table, photos=photo_table)
    return built, files, manifest.model_copy(update={"files": _records(built, files)})


def _records(built: BuiltIndex, files: dict[str, bytes]) -> dict[str, FileRecord]:
    records = {name: FileRecord(bytes=len(data), sha256=sha256_hex(data)) for name, data in files.items()}
    return {INDEX_FILE: FileRecord(bytes=built.written.bytes, sha256=built.written.sha256), **records}


def _write(
    storage: Storage, version: PublishedVersion, manifest: Manifest, built: BuiltIndex, files: dict[str, bytes]
) -> Manifest:
    """Write the files under the first revision that nobody has begun, and read them back."""
    number, first = version.number, version.manifest.revision + 1
    for revision in range(first, first + _TRIES):
        if storage.create(version_file(number, revision, _FIRST), files[_FIRST]):
            break
    storage.adopt(version_file(number, revision, INDEX_FILE), built.path)
    for name, data in files.items():
        if name != _FIRST:
            storage.write(version_file(number, revision, name), data)
    for name, record in manifest.files.items():
        path = version_file(number, revision, name)
        if measure(storage, path) != (record.bytes, record.sha256):
            raise ArtifactError(f"{storage.uri_of(path)} does not read back as it was written; the disk may be full")
    return manifest.model_copy(update={"revision": revision})
