"""What readers do: open a version and the shards that it stands on, every file by the hash that the manifest names."""

import hashlib
from typing import Any

from store.errors import LookalikeError
from store.index_file import indexed_ids, load_index
from store.layout import embeddings_path, faces_path, open_store, photos_path
from store.schemas import FACES, PHOTOS, VERSION_FACES, VERSION_PHOTOS, embeddings_schema, from_parquet
from store.storage import Storage
from store.versions import PublishedVersion, current_number, read_file, read_version

__all__ = ["Opened", "open_version", "read_all"]

Opened = tuple[PublishedVersion, list[dict[str, Any]], list[dict[str, Any]], list[int]]


def open_version(storage: Storage) -> Opened:
    """CURRENT, its rows of photos and of faces, and the ids in its index; again where it was removed meanwhile."""
    while True:
        before = current_number(storage)
        try:
            return _open(storage)
        except LookalikeError:
            if current_number(storage) == before:
                raise


def _open(storage: Storage) -> Opened:
    version = read_version(storage)
    index = load_index(read_file(storage, version, "index.faiss"), where="index.faiss")
    photos = from_parquet(read_file(storage, version, "photos.parquet"), VERSION_PHOTOS, where="photos.parquet")
    faces = from_parquet(read_file(storage, version, "faces.parquet"), VERSION_FACES, where="faces.parquet")
    return version, photos.to_pylist(), faces.to_pylist(), indexed_ids(index).tolist()


def read_all(store: str) -> str:
    """A hash of all that a version and its shards say."""
    storage = open_store(store)
    version, photos, faces, ids = open_version(storage)
    digest = hashlib.sha256(repr((version.number, photos, faces, ids)).encode())
    for name in version.manifest.files:
        digest.update(read_file(storage, version, name))
    contract, encoder = version.manifest.contract.id, version.manifest.encoder
    vectors = embeddings_schema(encoder.dimension)
    for shard in version.manifest.shards:
        for path, sha256, schema in (
            (photos_path(contract, shard.name), shard.photos_sha256, PHOTOS),
            (faces_path(contract, shard.name), shard.faces_sha256, FACES),
            (embeddings_path(encoder.id, shard.name), shard.embeddings_sha256, vectors),
        ):
            table = from_parquet(storage.read(path, sha256=sha256), schema, where=path)
            digest.update(repr(table.to_pylist()).encode())
    return digest.hexdigest()
