"""Embeddings read from shards, at once and block by block."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from store.errors import ArtifactError
from store.layout import embeddings_path, open_store
from store.schemas import embeddings_schema, to_parquet
from store.storage import Storage
from tasks.steps.face_blocks import Gallery
from tasks.steps.stored_faces import StoredFaces, open_faces, read_face_vectors

N, D = 900, 8
IDS = np.sort(np.random.default_rng(0).choice(2**62, N, replace=False).astype(np.int64))
VECTORS = np.random.default_rng(1).standard_normal((N, D)).astype(np.float32)
SHARD = np.random.default_rng(2).integers(0, 7, N)
ENCODER = "e" * 32
TABLE = pa.table({"face_id": IDS, "shard": [f"{one:032x}" for one in SHARD]})


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    stored = open_store(str(tmp_path), create=True)
    for number in range(7):
        rows = np.random.default_rng(number).permutation(np.flatnonzero(number == SHARD))
        flat = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS[rows].reshape(-1)), D)
        table = pa.table({"face_id": IDS[rows], "embedding": flat})
        stored.write(embeddings_path(ENCODER, f"{number:032x}"), to_parquet(table, embeddings_schema(D)))
    return stored


def opened(storage: Storage, table: Any = TABLE) -> Any:
    return open_faces(storage, table, encoder=ENCODER, dimension=D, recorded=None)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.steps.stored_faces._HELD_BYTES", 1_000)
    monkeypatch.setattr("tasks.steps.stored_faces.BLOCK", 200)


def test_few_faces_are_held_in_the_order_of_their_table(storage: Storage) -> None:
    few = opened(storage)
    assert isinstance(few, Gallery)
    assert np.array_equal(few.vectors, VECTORS)
    assert np.array_equal(read_face_vectors(storage, TABLE, encoder=ENCODER, dimension=D, recorded=None), VECTORS)


def test_many_faces_come_block_by_block_each_once_and_the_same_every_time(storage: Storage, many: None) -> None:
    faces = opened(storage)
    assert isinstance(faces, StoredFaces)
    first, again = list(faces.blocks()), list(faces.blocks())
    assert len(first) > 2
    assert max(len(rows) for rows, _ in first) < 500
    assert np.array_equal(np.sort(np.concatenate([rows for rows, _ in first])), np.arange(N))
    for (rows, vectors), (rows_again, _) in zip(first, again, strict=True):
        assert np.array_equal(vectors, VECTORS[rows])
        assert np.array_equal(rows, rows_again)
    assert np.array_equal(read_face_vectors(storage, TABLE, encoder=ENCODER, dimension=D, recorded=None), VECTORS)


def test_some_faces_are_taken_and_only_their_shards_are_read(
    storage: Storage, many: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces, read = opened(storage), []
    was = Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, path, **kw: read.append(path) or was(self, path, **kw))
    rows = np.flatnonzero((SHARD == 2) | (SHARD == 5))[::3]
    assert np.array_equal(faces.take(rows), VECTORS[rows])
    assert sorted(read) == [embeddings_path(ENCODER, f"{n:032x}") for n in (2, 5)]
    assert faces.take(rows[:0]).shape == (0, D)


def test_a_face_without_an_embedding_is_named(storage: Storage, many: None) -> None:
    stranger = pa.table({"face_id": [7, *IDS.tolist()], "shard": [f"{3:032x}", *TABLE["shard"].to_pylist()]})
    with pytest.raises(ArtifactError, match=f"face 7 of shard {3:032x} has no embedding by {ENCODER}"):
        list(opened(storage, stranger).blocks())
