"""A store written by the first release: what it holds must open, and mean the same, for ever."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from store.encoders import stored_encoders
from store.errors import ManifestError
from store.index_file import index_size, load_index, search
from store.layout import open_store
from store.schemas import VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.shards import read_embeddings, read_faces, read_photos
from store.versions import current_number, published_numbers, read_file, read_version

STORE = Path(__file__).resolve().parents[1] / "data" / "format1"


@pytest.fixture
def storage(tmp_path):
    return open_store(str(shutil.copytree(STORE, tmp_path / "store")))


def test_its_version_opens_and_counts_what_it_counted(storage):
    assert current_number(storage) == 1
    assert published_numbers(storage) == [1]
    manifest = read_version(storage).manifest
    assert {status: n for status, n in manifest.counts.items() if n} == {
        "indexed": 4, "duplicate": 1, "no_face": 1, "unreadable": 1,
    }  # fmt: skip
    assert manifest.photos == 7
    assert manifest.sources == ["/photos"]
    assert stored_encoders(storage) == [manifest.encoder.id]


def test_its_tables_index_and_shards_agree(storage):
    version = read_version(storage)
    manifest = version.manifest
    photos = from_parquet(read_file(storage, version, "photos.parquet"), VERSION_PHOTOS, where="photos").to_pylist()
    faces = from_parquet(read_file(storage, version, "faces.parquet"), VERSION_FACES, where="faces").to_pylist()
    assert [row["uri"] for row in photos] == sorted(row["uri"] for row in photos)
    index = load_index(read_file(storage, version, "index.faiss"), where="index.faiss")
    assert index_size(index) == (len(faces), manifest.encoder.dimension) == (manifest.faces, 16)
    stored = set()  # a twin's shard holds the same face again
    for shard in manifest.shards:
        assert read_photos(storage, contract=manifest.contract.id, shard=shard.name).num_rows == shard.photos
        assert read_faces(storage, contract=manifest.contract.id, shard=shard.name).num_rows == shard.faces
        embeddings = read_embeddings(storage, encoder=manifest.encoder.id, shard=shard.name, dimension=16)
        for row in embeddings.to_pylist():
            cosines, ids = search(index, np.asarray([row["embedding"]], np.float32), k=1)
            assert ids[0, 0] == row["face_id"]
            assert cosines[0, 0] == pytest.approx(1, abs=1e-5)
            stored.add(row["face_id"])
    assert len(stored) == manifest.faces
    twins = [row for row in faces if len(row["uris"]) == 2]
    assert len(twins) == 1
    assert twins[0]["uri"] == twins[0]["uris"][0]


def test_a_format_of_tomorrow_is_refused(storage):
    path = "versions/000001/manifest.json"
    storage.write(path, storage.read(path).replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(ManifestError, match="got format 2, this reader knows format 1"):
        read_version(storage)
