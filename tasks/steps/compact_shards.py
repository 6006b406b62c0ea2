"""Put one shard together from rows of others: their photos, faces with crops, and embeddings are carried, nothing is computed."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from store.errors import ArtifactError, LookalikeError
from store.forgotten import read_forgotten
from store.layout import embeddings_path, faces_path, open_store, photos_path
from store.manifest import ShardRecord
from store.refs import ArtifactRef
from store.schemas import FACES, PHOTOS, PLAN, embeddings_schema, from_parquet
from store.shards import commit_embeddings, commit_shard, find_embeddings, find_shard
from store.storage import Storage
from store.versions import read_version
from tasks.steps.find_faces import shard_of
from tasks.steps.resolve_encoder import EncoderRef

__all__ = ["CompactedShard", "compact_shards"]


@dataclass(frozen=True)
class CompactedShard:
    """A shard that was put together.

    Attributes:
        shard: its photos, committed.
        embedded: whether the encoder's embeddings were carried along.
    """

    shard: ArtifactRef
    embedded: bool


def compact_shards(
    request: ArtifactRef, *, store: str, contract: str, parent: int, encoder: EncoderRef
) -> CompactedShard:
    """Commit a shard made of rows that stand in others; one that is committed already is used as it is.

    Args:
        request: PLAN rows of its photos, each with the shard that it stands in now.
        store: its uri.
        contract: the contract's id.
        parent: the version whose manifest holds the hashes of those shards.
        encoder: whose embeddings are carried along, where the parent has them.

    Raises:
        ArtifactError: a file is not what the parent's manifest says, or lacks a photo.
    """
    storage = open_store(store, create=True)
    name = shard_of(request)
    manifest = read_version(storage, parent).manifest
    records = {record.name: record for record in manifest.shards}
    rows = from_parquet(storage.read(storage.path_of(request.uri), sha256=request.sha256), PLAN, where=request.uri)
    sources = [records[shard] for shard in sorted(rows["shard"].unique().to_pylist())]
    committed = find_shard(storage, contract=contract, shard=name)
    if committed is None:
        photos = pa.concat_tables(list(_photos(storage, rows, sources, contract))).sort_by("uri")
        faces = pa.concat_tables(list(_faces(storage, photos, sources, contract)))
        if photos.num_rows != rows.num_rows:
            raise ArtifactError(f"shard {name} lost photos: {rows.num_rows} to carry, {photos.num_rows} found")
        committed = commit_shard(storage, contract=contract, shard=name, photos=photos, faces=faces)
        _refuse_forgotten(storage, photos, faces, contract=contract, shard=name)
    there = find_embeddings(storage, encoder=encoder.id, shard=name, dimension=encoder.dimension)
    if there is None and manifest.encoder.id == encoder.id:
        _carry_embeddings(storage, name, sources, contract=contract, encoder=encoder)
    return CompactedShard(shard=committed, embedded=there is not None or manifest.encoder.id == encoder.id)


def _refuse_forgotten(storage: Storage, photos: pa.Table, faces: pa.Table, *, contract: str, shard: str) -> None:
    """Take back a shard that carries somebody who was forgotten since its rows were read."""
    forgotten = read_forgotten(storage)
    if not forgotten:
        return
    told = faces.select(["face_id", "photo_sha256", "box"]).to_pylist()
    if any(map(forgotten.has_photo, photos.to_pylist())) or any(map(forgotten.has_face, told)):
        storage.remove(photos_path(contract, shard))
        storage.remove(faces_path(contract, shard))
        raise LookalikeError("somebody was forgotten while this shard was put together; run the same command again")


def _photos(storage: Storage, rows: pa.Table, sources: list[ShardRecord], contract: str) -> Iterator[pa.Table]:
    """PHOTOS of each shard that are carried, stamped as they are listed now."""
    for record in sources:
        path = photos_path(contract, record.name)
        table = from_parquet(storage.read(path, sha256=record.photos_sha256), PHOTOS, where=storage.uri_of(path))
        listed = rows.filter(pc.equal(rows["shard"], record.name))
        at = pc.index_in(table["uri"], value_set=listed["uri"].combine_chunks())
        carried, stamps = table.filter(pc.is_valid(at)), listed.take(at.drop_null())
        for column in ("etag", "mtime_ns"):
            where = carried.schema.get_field_index(column)
            carried = carried.set_column(where, PHOTOS.field(column), stamps[column])
        yield carried.cast(PHOTOS)


def _faces(storage: Storage, photos: pa.Table, sources: list[ShardRecord], contract: str) -> Iterator[pa.Table]:
    """FACES of the photos that are carried, under the first of a photo's uris; of equal bytes in two shards one's are taken."""
    seen: set[str] = set()
    for record in sources:
        path = faces_path(contract, record.name)
        table = from_parquet(storage.read(path, sha256=record.faces_sha256), FACES, where=storage.uri_of(path))
        wanted = set(photos["photo_sha256"].to_pylist()) - seen
        carried = table.filter(pc.is_in(table["photo_sha256"], value_set=pa.array(wanted, pa.string())))
        seen |= set(carried["photo_sha256"].unique().to_pylist())
        at = pc.index_in(carried["photo_sha256"], value_set=photos["photo_sha256"].combine_chunks())
        yield carried.set_column(carried.schema.get_field_index("uri"), FACES.field("uri"), photos["uri"].take(at))


def _carry_embeddings(
    storage: Storage, name: str, sources: list[ShardRecord], *, contract: str, encoder: EncoderRef
) -> None:
    path = faces_path(contract, name)
    ids = from_parquet(storage.read(path), FACES, where=storage.uri_of(path), columns=["face_id"])["face_id"]
    schema = embeddings_schema(encoder.dimension)
    parts = []
    for record in sources:
        file = embeddings_path(encoder.id, record.name)
        data = storage.read(file, sha256=record.embeddings_sha256)
        parts.append(from_parquet(data, schema, where=storage.uri_of(file)))
    stored = pa.concat_tables(parts)
    at = pc.index_in(ids, value_set=stored["face_id"].combine_chunks())
    if at.null_count:
        raise ArtifactError(f"{at.null_count} faces of shard {name} have no embedding by {encoder.id}; build again")
    commit_embeddings(
        storage, encoder=encoder.id, shard=name, table=stored.take(at.combine_chunks()), dimension=encoder.dimension
    )
