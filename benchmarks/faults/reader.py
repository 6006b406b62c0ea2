"""What readers do: open a version as `query` does, and the shards that it stands on."""

import hashlib
from typing import Any

from store.errors import LookalikeError
from store.index_file import indexed_ids, load_index
from store.layout import open_store
from store.schemas import VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.shards import read_faces, read_photos, read_vectors
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
    for shard in version.manifest.shards:
        digest.update(repr(read_photos(storage, contract=contract, shard=shard.name).to_pylist()).encode())
        digest.update(repr(read_faces(storage, contract=contract, shard=shard.name).to_pylist()).encode())
        ids_N, vectors_ND = read_vectors(storage, encoder=encoder.id, shard=shard.name, dimension=encoder.dimension)
        digest.update(ids_N.tobytes() + vectors_ND.tobytes())
    return digest.hexdigest()
