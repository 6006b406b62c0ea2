"""Verify one version: its files against its manifest, its tables against each other, its index against its shards."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import ArtifactError
from store.fingerprints import content_sha256
from store.index_changed import ChangedIndex
from store.index_file import flat_vectors, index_size, indexed_ids
from store.schemas import STATUSES
from store.storage import Storage
from store.version_files import (
    ADDED_FACES,
    ADDED_INDEX,
    ADDED_PHOTOS_FILE,
    FACES_FILE,
    INDEX_FILE,
    LEFT_FILE,
    PHOTOS_FILE,
    VersionFiles,
    files_of,
)
from store.version_index import open_index_of
from store.versions import PublishedVersion, measure
from tasks.steps.verify_shards import Shards

__all__ = ["verify_version"]

Add = Callable[[str, str, str], None]


def verify_version(storage: Storage, version: PublishedVersion, shards: Shards, add: Add) -> None:
    """Add every problem of a version; what is not what its hash says is not opened.

    Args:
        storage: the store.
        version: as its manifest was read.
        shards: verifies each shard once for all versions.
        add: is told path, kind and sentence.
    """
    manifest = version.manifest
    whole = {name for name in manifest.files if _is_whole(storage, version, name, add)}
    for record in manifest.shards:
        shards.verify(manifest.contract.id, manifest.encoder, record)
    files = files_of(storage, version)
    photos = _table(files, PHOTOS_FILE, files.photos, whole, add)
    faces = _table(files, FACES_FILE, files.faces, whole, add)
    if photos is not None:
        _verify_photos(version, photos, add)
    if faces is not None:
        _verify_faces(version, faces, add)
    if photos is not None and faces is not None:
        _verify_pair(version, photos, faces, shards, add)
        if whole.issuperset(_parts(files, INDEX_FILE)):
            _verify_index(version, files, faces, shards, add)


def _parts(files: VersionFiles, name: str) -> set[str]:
    """The files that a table, or the index, is read from."""
    added = {PHOTOS_FILE: ADDED_PHOTOS_FILE, FACES_FILE: ADDED_FACES, INDEX_FILE: ADDED_INDEX}[name]
    return {name} if files.manifest.changes is None else {name, added, LEFT_FILE}


def _table(files: VersionFiles, name: str, read: Callable[[], pa.Table], whole: set[str], add: Add) -> pa.Table | None:
    if not whole.issuperset(_parts(files, name)):
        return None
    try:
        return read()
    except ArtifactError as error:
        add(files.paths[name], "table", str(error))
        return None


def _is_whole(storage: Storage, version: PublishedVersion, name: str, add: Add) -> bool:
    path, record = version.path_of(name), version.manifest.files[name]
    if not storage.exists(path):
        add(path, "missing", f"version {version.number} names it, and it is not there")
        return False
    size, sha256 = measure(storage, path)
    if sha256 != record.sha256:
        add(path, "hash", f"its sha256 is {sha256[:12]}…, the manifest says {record.sha256[:12]}…")
        return False
    if size != record.bytes:
        add(version.path_of("manifest.json"), "count", f"{name} has {size} bytes, the manifest says {record.bytes}")
    return True


def _verify_photos(version: PublishedVersion, photos: pa.Table, add: Add) -> None:
    manifest, path = version.manifest, version.path_of("photos.parquet")
    uris, statuses = photos.column("uri").to_pylist(), Counter(photos.column("status").to_pylist())
    if any(a >= b for a, b in pairwise(uris)):
        add(path, "order", "its uris do not rise, or one stands there twice")
    if unknown := set(statuses) - set(STATUSES):
        add(path, "status", f"it has the statuses {sorted(unknown)[:3]}, which nobody knows")
    gone = manifest.counts.get("forgotten", 0) - statuses.get("forgotten", 0)
    if len(uris) != manifest.photos - gone:
        add(path, "count", f"it has {len(uris)} rows, the manifest says {manifest.photos}, {gone} of them forgotten")
    for status in set(statuses) | set(manifest.counts):
        if status != "forgotten" and statuses.get(status, 0) != manifest.counts.get(status, 0):
            add(
                path,
                "count",
                f"{statuses.get(status, 0)} photos are {status}, the manifest says {manifest.counts.get(status, 0)}",
            )
    if stray := set(photos.column("shard").to_pylist()) - {s.name for s in manifest.shards}:
        add(path, "shard", f"its photos stand in the shard {min(stray)}, which the manifest does not name")


def _verify_faces(version: PublishedVersion, faces: pa.Table, add: Add) -> None:
    path, ids = version.path_of("faces.parquet"), faces.column("face_id").to_numpy()
    if np.any(np.diff(ids) <= 0):
        add(path, "order", "its face ids do not rise, or one stands there twice")
    if len(ids) != version.manifest.faces:
        add(path, "count", f"it has {len(ids)} rows, the manifest says {version.manifest.faces} faces")


def _verify_pair(version: PublishedVersion, photos: pa.Table, faces: pa.Table, shards: Shards, add: Add) -> None:
    """Both tables together, and each row against the shard it came from."""
    manifest, path = version.manifest, version.path_of("faces.parquet")
    content = zip(*(photos.column(name).to_pylist() for name in ("uri", "photo_sha256", "status")), strict=True)
    if (got := content_sha256(content, faces.column("face_id").to_pylist())) != manifest.content_sha256:
        add(version.path_of("manifest.json"), "content", f"content_sha256 is not that of the tables, {got[:12]}…")
    indexed = photos.filter(pc.equal(photos.column("status"), "indexed"))
    there = Counter(faces.column("photo_sha256").to_pylist())
    wanted = dict(zip(*(indexed.column(n).to_pylist() for n in ("photo_sha256", "num_faces")), strict=True))
    if None not in wanted.values() and there != Counter(wanted):
        add(path, "count", "its faces are not those of the indexed photos: some photo has more or fewer than it should")
    for shard, photo_rows, face_rows in _by_shard(photos, faces):
        if (known := shards.rows(manifest.contract.id, shard)) is None:
            continue  # told of as the shard's own problem
        if stray := [uri for uri, sha256 in photo_rows if known.photos.get(uri, "") != sha256]:
            add(version.path_of("photos.parquet"), "row", f"{stray[0]} is not in the shard {shard} as it is here")
        if stray_ids := [i for i, sha256, box in face_rows if known.faces.get(i) != (sha256, box)]:
            add(path, "row", f"face {stray_ids[0]} is not in the shard {shard} as it is here")


def _by_shard(photos: pa.Table, faces: pa.Table) -> list[tuple[str, list[Any], list[Any]]]:
    rows: dict[str, tuple[list[Any], list[Any]]] = {}
    for row in photos.select(["shard", "uri", "photo_sha256"]).to_pylist():
        rows.setdefault(row["shard"], ([], []))[0].append((row["uri"], row["photo_sha256"]))
    for row in faces.select(["shard", "face_id", "photo_sha256", "box"]).to_pylist():
        rows.setdefault(row["shard"], ([], []))[1].append((row["face_id"], row["photo_sha256"], tuple(row["box"])))
    return [(shard, *both) for shard, both in sorted(rows.items())]


def _verify_index(version: PublishedVersion, files: VersionFiles, faces: pa.Table, shards: Shards, add: Add) -> None:
    manifest, path = version.manifest, version.path_of(INDEX_FILE)
    with TemporaryDirectory(prefix="lookalike-") as folder:
        try:
            index = open_index_of(files, copies=Path(folder))
        except ArtifactError as error:
            return add(path, "index", str(error))
        if index_size(index) != (wanted := (manifest.faces, manifest.encoder.dimension)):
            return add(
                path, "index", f"it holds {index_size(index)} vectors and dimensions, the manifest says {wanted}"
            )
        ids = faces.column("face_id").to_numpy()
        if not np.array_equal(indexed_ids(index), np.sort(ids)):
            return add(path, "index", "it holds other faces than faces.parquet")
        found = None if isinstance(index, ChangedIndex) else flat_vectors(index)
        return None if found is None else _compare_vectors(version, faces, found, shards, add)


def _compare_vectors(
    version: PublishedVersion,
    faces: pa.Table,
    found: tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]],
    shards: Shards,
    add: Add,
) -> None:
    """Every vector of the index against the embedding in its shard, a shard at a time."""
    manifest, path = version.manifest, version.path_of("index.faiss")
    order = np.argsort(found[0])
    sorted_ids = found[0][order]
    for shard in sorted(set(faces.column("shard").to_pylist())):
        embedded = shards.vectors(manifest.encoder, shard)
        if embedded is None:
            continue
        ids = faces.filter(pc.equal(faces.column("shard"), shard)).column("face_id").to_numpy()
        by_id = np.argsort(embedded[0])
        at = np.searchsorted(embedded[0][by_id], ids)
        if np.any(at >= len(by_id)) or not np.array_equal(embedded[0][by_id][at], ids):
            add(version.path_of("faces.parquet"), "row", f"a face of the shard {shard} has no embedding there")
            continue
        rows = order[np.searchsorted(sorted_ids, ids)]
        if not np.array_equal(found[1][rows], embedded[1][by_id][at]):
            add(path, "vector", f"a vector is not the embedding that the shard {shard} holds of its face")
