"""Shards: what is known of a few hundred photos, computed once and for ever.

The faces are written first and the photos last; the photos' file commits the shard. The first one committed is kept.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from store.fingerprints import fingerprint, sha256_hex, shard_name
from store.layout import embeddings_path, faces_path, photos_path
from store.refs import ArtifactRef
from store.schemas import FACES, PHOTOS, embeddings_schema, from_parquet, to_parquet
from store.storage import Storage

__all__ = [
    "commit_embeddings",
    "commit_shard",
    "cut_into_shards",
    "find_embeddings",
    "find_shard",
    "read_embeddings",
    "read_faces",
    "read_photos",
    "read_vectors",
]

_CROPS_A_GROUP = 64  # rows; a few crops can then be read without the rest


def cut_into_shards(
    rows: Sequence[dict[str, object]], *, contract: str, attempt: int, shard_photos: int
) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Cut listed photos, in the order of their uris, into named shards of about `shard_photos`.

    A cut falls where a photo's own fingerprint says so, so that a photo that comes or goes between two runs changes
    the shard it is in and leaves the others their names. No shard holds more than twice `shard_photos`.

    Args:
        rows: uri, size, etag and mtime_ns of each photo.
        contract: the contract's id.
        attempt: 0, raised when failures are retried.
        shard_photos: photos a shard, about.
    """
    batch: list[dict[str, object]] = []
    prints: list[str] = []
    for row in sorted(rows, key=lambda r: str(r["uri"])):
        prints.append(fingerprint(str(row["uri"]), size=row["size"], etag=row["etag"], mtime_ns=row["mtime_ns"]))  # type: ignore[arg-type]
        batch.append(row)
        at_a_mark = int(prints[-1][:8], 16) % max(1, shard_photos // 2) == 0
        if (at_a_mark and len(batch) >= shard_photos // 2) or len(batch) >= 2 * shard_photos:
            yield shard_name(contract=contract, attempt=attempt, fingerprints=prints), batch
            batch, prints = [], []
    if batch:
        yield shard_name(contract=contract, attempt=attempt, fingerprints=prints), batch


def commit_shard(storage: Storage, *, contract: str, shard: str, photos: pa.Table, faces: pa.Table) -> ArtifactRef:
    """Write a shard, faces first; where somebody else committed it meanwhile, theirs is kept.

    Faces may be there of a run that was killed, or is under way, and that could read other photos than this one. They stay,
    and photos that have other faces are committed as failed: a later build tries them again.
    """
    face_bytes = to_parquet(faces, FACES, rows_a_group=_CROPS_A_GROUP)
    if find_shard(storage, contract=contract, shard=shard) is None:
        if not storage.create(faces_path(contract, shard), face_bytes):
            there = read_faces(storage, contract=contract, shard=shard, columns=["face_id", "photo_sha256"])
            photos = _agreeing(photos, mine=faces, there=there)
        storage.create(photos_path(contract, shard), to_parquet(photos, PHOTOS))
    committed = find_shard(storage, contract=contract, shard=shard)
    assert committed is not None  # noqa: S101
    return committed


def _agreeing(photos: pa.Table, *, mine: pa.Table, there: pa.Table) -> pa.Table:
    """The photos' rows, those failed whose faces in `there` are not those in `mine`."""
    ours, theirs = _faces_by_photo(mine), _faces_by_photo(there)
    rows = photos.to_pylist()
    for row in rows:
        digest = row["photo_sha256"]
        if row["status"] == "indexed" and ours.get(digest) != theirs.get(digest):
            reason = "another run of its shard could not read it and came first; the next build tries again"
            row |= {"status": "failed", "reason": reason, "num_faces": 0}
    return pa.Table.from_pylist(rows, schema=PHOTOS)


def _faces_by_photo(faces: pa.Table) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for row in faces.select(["photo_sha256", "face_id"]).to_pylist():
        found.setdefault(row["photo_sha256"], set()).add(row["face_id"])
    return found


def find_shard(storage: Storage, *, contract: str, shard: str) -> ArtifactRef | None:
    """The committed shard's photos, or None if there is none."""
    path = photos_path(contract, shard)
    if not storage.exists(path):
        return None
    data = storage.read(path)
    rows = from_parquet(data, PHOTOS, where=storage.uri_of(path), columns=["uri"]).num_rows
    return ArtifactRef(uri=storage.uri_of(path), sha256=sha256_hex(data), rows=rows)


def read_photos(storage: Storage, *, contract: str, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A shard's photos, PHOTOS or some of its columns."""
    path = photos_path(contract, shard)
    return from_parquet(storage.read(path), PHOTOS, where=storage.uri_of(path), columns=columns)


def read_faces(
    storage: Storage, *, contract: str, shard: str, columns: Sequence[str] | None = None, sha256: str | None = None
) -> pa.Table:
    """A shard's faces, FACES or some of its columns; `sha256` is of the file, where a manifest names it."""
    path = faces_path(contract, shard)
    return from_parquet(storage.read(path, sha256=sha256), FACES, where=storage.uri_of(path), columns=columns)


def commit_embeddings(storage: Storage, *, encoder: str, shard: str, table: pa.Table, dimension: int) -> ArtifactRef:
    """Write a shard's embeddings; the first ones committed are kept."""
    path = embeddings_path(encoder, shard)
    storage.create(path, to_parquet(table, embeddings_schema(dimension)))
    committed = find_embeddings(storage, encoder=encoder, shard=shard, dimension=dimension)
    assert committed is not None  # noqa: S101
    return committed


def find_embeddings(storage: Storage, *, encoder: str, shard: str, dimension: int) -> ArtifactRef | None:
    """A shard's embeddings by one encoder, or None if there are none."""
    path = embeddings_path(encoder, shard)
    if not storage.exists(path):
        return None
    data = storage.read(path)
    rows = from_parquet(data, embeddings_schema(dimension), where=storage.uri_of(path), columns=["face_id"]).num_rows
    return ArtifactRef(uri=storage.uri_of(path), sha256=sha256_hex(data), rows=rows)


def read_embeddings(storage: Storage, *, encoder: str, shard: str, dimension: int) -> pa.Table:
    """A shard's embeddings: face_id and embedding, float32 of unit length."""
    path = embeddings_path(encoder, shard)
    return from_parquet(storage.read(path), embeddings_schema(dimension), where=storage.uri_of(path))


def read_vectors(
    storage: Storage, *, encoder: str, shard: str, dimension: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """A shard's embeddings as arrays: face ids, int64 (N,), and vectors, float32 (N, D), in the same order."""
    table = read_embeddings(storage, encoder=encoder, shard=shard, dimension=dimension)
    flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    return table.column("face_id").to_numpy(), flat.reshape(-1, dimension)
