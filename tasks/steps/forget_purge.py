"""Take forgotten photos and faces out of shards, versions and leftovers.

What is to go is found by asking the tags of every row, so that a purge which was killed is finished by the next one, and one with
nothing to do changes nothing. Shards are replaced under new names, versions by a raised revision that one swap of the manifest
makes the version; only then do the old files go.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import ArtifactError, VersionError
from store.forgotten import Forgotten, read_forgotten
from store.layout import embeddings_path, faces_path, photos_path, version_folder
from store.leases import storage_now_s
from store.schemas import FACES, PHOTOS, VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.storage import Storage
from store.verified_files import cache_folder, purge_files
from store.version_files import ADDED_FACES, ADDED_PHOTOS_FILE, FACES_FILE, PHOTOS_FILE
from store.versions import CLAIM, MANIFEST, PublishedVersion, claimed_numbers, published_numbers, read_version
from tasks.steps.forget_version import replace_version

__all__ = ["Purged", "holds_forgotten", "purge_forgotten"]

_ROUNDS = 20
_ROWS_AT_ONCE = 4096
_OF_A_PHOTO = ["uri", "photo_sha256", "etag", "mtime_ns"]
_OF_A_FACE = ["face_id", "photo_sha256", "box"]
_KEPT_RUNS = frozenset({"leases", "locks"})
_PUBLISHING_S = 300.0  # no publish takes so long from its claim to its manifest


@dataclass(frozen=True)
class Purged:
    """What a purge changed.

    Attributes:
        versions: numbers of those replaced.
        shards: files of shards that went.
        leftovers: uploads and old object versions of a bucket that went.
    """

    versions: tuple[int, ...]
    shards: int
    leftovers: int


def purge_forgotten(storage: Storage) -> Purged:
    """Remove everything in the store that the tags tell of; nothing is touched where nobody was ever forgotten.

    Raises:
        StoreError: a file cannot be read; what is told of in it is filtered from every answer, and stays until it is gone.
        VersionError: versions kept changing.
    """
    replaced: set[int] = set()
    if not read_forgotten(storage):
        return Purged(versions=(), shards=0, leftovers=0)
    for _ in range(_ROUNDS):
        forgotten = read_forgotten(storage)
        affected = _affected_shards(storage, forgotten)
        versions = [read_version(storage, number) for number in published_numbers(storage)]
        stale = [v for v in versions if _is_affected(storage, v, forgotten, affected)]
        if not stale:
            break
        for version in stale:
            replace_version(storage, version, forgotten)
            replaced.add(version.number)
    else:
        raise VersionError(f"versions changed {_ROUNDS} times while somebody was forgotten; run the same command again")
    gone = _remove_shards(storage, affected)
    for version in versions:
        _sweep_version(storage, version)
    _sweep_unpublished(storage)
    for name in storage.names("runs"):
        if name not in _KEPT_RUNS:
            storage.remove(f"runs/{name}")
    files = cache_folder() / "files"
    if not storage.local and files.is_dir():  # which of them were ours is not known after a kill; all can be had again
        purge_files([file.name for file in files.iterdir()])
    leftovers = storage.abort_leftover_uploads(older_than=timedelta(0)) + storage.remove_old_versions()
    return Purged(versions=tuple(sorted(replaced)), shards=gone, leftovers=leftovers)


def holds_forgotten(storage: Storage, files: Mapping[str, str]) -> bool:
    """Whether a version's tables tell of somebody who was forgotten.

    Args:
        storage: the store.
        files: where its files lie, by their names; rows that count no more tell of somebody all the same.
    """
    forgotten = read_forgotten(storage)
    if not forgotten:
        return False
    for name in (PHOTOS_FILE, ADDED_PHOTOS_FILE):
        rows = _rows(storage, files[name], VERSION_PHOTOS, [*_OF_A_PHOTO, "size"]) if name in files else ()
        if any(map(forgotten.has_photo, rows)):
            return True
    for name in (FACES_FILE, ADDED_FACES):
        rows = _rows(storage, files[name], VERSION_FACES, _OF_A_FACE) if name in files else ()
        if any(map(forgotten.has_face, rows)):
            return True
    return False


def _is_affected(storage: Storage, version: PublishedVersion, forgotten: Forgotten, affected: set[str]) -> bool:
    if not forgotten:
        return False
    named = any(shard.name in affected for shard in version.manifest.shards)
    return named or holds_forgotten(storage, {n: version.path_of(n) for n in version.manifest.files})


def _affected_shards(storage: Storage, forgotten: Forgotten) -> set[str]:
    """Names of the shards any of whose files tells of somebody; each is asked by itself, for a purge may have died between them."""
    if not forgotten:
        return set()
    found: set[str] = set()
    for path, name in _shard_files(storage, "photos"):
        if any(map(forgotten.has_photo, _rows(storage, path, PHOTOS, [*_OF_A_PHOTO, "bytes"]))):
            found.add(name)
    for path, name in _shard_files(storage, "faces"):
        if name not in found and any(map(forgotten.has_face, _rows(storage, path, FACES, _OF_A_FACE))):
            found.add(name)
    for path, name in _shard_files(storage, "embeddings"):
        if name not in found and any(forgotten.has("face", str(i)) for i in _embedded_ids(storage, path)):
            found.add(name)
    return found


def _shard_files(storage: Storage, kind: str) -> Iterator[tuple[str, str]]:
    for owner in storage.names(kind):
        for name in storage.names(f"{kind}/{owner}"):
            if name.endswith(".parquet"):
                yield f"{kind}/{owner}/{name}", PurePosixPath(name).stem


def _rows(storage: Storage, path: str, schema: pa.Schema, columns: list[str]) -> Iterator[dict[str, Any]]:
    table = from_parquet(storage.read(path), schema, where=storage.uri_of(path), columns=columns)
    for batch in table.to_batches(_ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _embedded_ids(storage: Storage, path: str) -> list[int]:
    try:
        table = pq.read_table(io.BytesIO(storage.read(path)), columns=["face_id"])
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{storage.uri_of(path)} cannot be read as Parquet: {error}") from error
    ids: list[int] = table.column("face_id").to_pylist()
    return ids


def _remove_shards(storage: Storage, affected: set[str]) -> int:
    """Remove every file of shards that no version names any more; one that was never published is computed anew when it is wanted."""
    gone = 0
    contracts, encoders = storage.names("photos"), storage.names("embeddings")
    for shard in sorted(affected):
        paths = [photos_path(one, shard) for one in contracts] + [faces_path(one, shard) for one in contracts]
        for path in [*paths, *(embeddings_path(one, shard) for one in encoders)]:
            if storage.exists(path):
                storage.remove(path)
                gone += 1
    return gone


def _sweep_version(storage: Storage, version: PublishedVersion) -> None:
    """Remove what earlier revisions, and replacements that were never switched to, left in a version's folder."""
    folder = version_folder(version.number)
    named = {version.path_of(name) for name in version.manifest.files} | {f"{folder}/{CLAIM}", f"{folder}/{MANIFEST}"}
    for name in storage.names(folder):
        path = f"{folder}/{name}"
        if path not in named and not any(one.startswith(f"{path}/") for one in named):
            storage.remove(path)


def _sweep_unpublished(storage: Storage) -> None:
    """Remove what publishes that died left under numbers without a manifest; the claim stays, and so does what may be under way."""
    published = set(published_numbers(storage))
    unpublished = [n for n in sorted(claimed_numbers(storage)) if n not in published]
    now = storage_now_s(storage) if unpublished else 0.0
    for number in unpublished:
        folder = version_folder(number)
        claimed = storage.modified_s(f"{folder}/{CLAIM}")
        if claimed is None or now - claimed > _PUBLISHING_S:
            for name in storage.names(folder):
                if name != CLAIM and not storage.exists(f"{folder}/{MANIFEST}"):
                    storage.remove(f"{folder}/{name}")
