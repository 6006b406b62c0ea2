import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from store.layout import faces_path, photos_path
from store.schemas import FACES, PHOTOS, embeddings_schema
from store.shards import (
    commit_embeddings,
    commit_shard,
    cut_into_shards,
    find_embeddings,
    find_shard,
    read_embeddings,
    read_faces,
    read_photos,
)
from store.storage import Storage

Row = dict[str, Any]
CONTRACT = "c" * 32


def photo(n: int | str, *, mtime_ns: int = 1) -> Row:
    return {"uri": f"/p/{n:>06}.jpg", "size": 1000, "etag": None, "mtime_ns": mtime_ns}


def cut(rows: Sequence[Row], *, shard_photos: int = 64, attempt: int = 0) -> list[tuple[str, list[Row]]]:
    return list(cut_into_shards(rows, contract=CONTRACT, attempt=attempt, shard_photos=shard_photos))


def names(rows: Sequence[Row], **settings: int) -> set[str]:
    return {name for name, _ in cut(rows, **settings)}


PHOTOS_5000 = [photo(n) for n in range(5000)]


@pytest.mark.parametrize("shard_photos", [1, 2, 3, 64, 256, 10_000])
def test_every_photo_is_in_one_shard_and_no_shard_is_too_large(shard_photos: int) -> None:
    shards = cut(PHOTOS_5000, shard_photos=shard_photos)
    assert [row for _, members in shards for row in members] == PHOTOS_5000
    sizes = [len(members) for _, members in shards]
    assert max(sizes) <= 2 * shard_photos
    assert all(size >= shard_photos // 2 for size in sizes[:-1])
    assert len(names(PHOTOS_5000, shard_photos=shard_photos)) == len(shards)


def test_no_photo_gives_no_shard() -> None:
    assert cut([]) == []


def test_the_order_of_the_photos_does_not_matter() -> None:
    assert cut(PHOTOS_5000[::-1]) == cut(PHOTOS_5000)


def test_a_photo_that_comes_goes_or_is_touched_changes_the_shards_around_it_only() -> None:
    before = names(PHOTOS_5000)
    assert len(before) > 50
    changed = []
    for at in range(0, 5000, 619):
        added = [*PHOTOS_5000, photo(f"{at:06}a")]
        removed = PHOTOS_5000[:at] + PHOTOS_5000[at + 1 :]
        touched = [*removed, photo(at, mtime_ns=2)]
        changed += [len(names(after) - before) for after in (added, removed, touched)]
    assert min(changed) >= 1
    assert max(changed) <= 3
    assert sum(n <= 2 for n in changed) >= 0.9 * len(changed)


def test_another_attempt_is_another_name() -> None:
    assert not names(PHOTOS_5000, attempt=1) & names(PHOTOS_5000)


def tables(reason: str) -> dict[str, pa.Table]:
    rows = [{"uri": "/p/a.jpg", "status": "unreadable", "reason": reason, "num_faces": 0}]
    return {"photos": pa.Table.from_pylist(rows, schema=PHOTOS), "faces": FACES.empty_table()}


def test_a_shard_comes_back_and_the_first_one_committed_is_kept(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    first = commit_shard(storage, contract=CONTRACT, shard="s", **tables("first"))
    second = commit_shard(storage, contract=CONTRACT, shard="s", **tables("second"))
    assert first == second == find_shard(storage, contract=CONTRACT, shard="s")
    assert first.rows == 1
    assert read_photos(storage, contract=CONTRACT, shard="s").column("reason").to_pylist() == ["first"]
    assert read_faces(storage, contract=CONTRACT, shard="s").num_rows == 0


def test_of_racing_commits_one_is_kept_and_all_are_told_of_it(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    start = threading.Barrier(6)

    def commit(n: int) -> object:
        start.wait()
        return commit_shard(storage, contract=CONTRACT, shard="s", **tables(str(n)))

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(commit, range(6)))) == 1


def test_a_shard_with_faces_only_is_not_committed(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    commit_shard(storage, contract=CONTRACT, shard="s", **tables("first"))
    storage.remove(photos_path(CONTRACT, "s"))
    assert storage.exists(faces_path(CONTRACT, "s"))
    assert find_shard(storage, contract=CONTRACT, shard="s") is None


def test_faces_are_written_before_the_photos_that_commit_them(tmp_path: Path) -> None:
    made: list[str] = []

    class Watched(Storage):
        def create(self, path: str, data: bytes) -> bool:
            made.append(path)
            return super().create(path, data)

    commit_shard(Watched(tmp_path), contract=CONTRACT, shard="s", **tables("first"))
    assert made == [faces_path(CONTRACT, "s"), photos_path(CONTRACT, "s")]


def test_the_first_embeddings_committed_are_kept(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    assert find_embeddings(storage, encoder="e", shard="s", dimension=2) is None
    for value in (1.0, 2.0):
        table = pa.Table.from_pylist([{"face_id": 7, "embedding": [value, 0.0]}], schema=embeddings_schema(2))
        commit_embeddings(storage, encoder="e", shard="s", table=table, dimension=2)
    rows = read_embeddings(storage, encoder="e", shard="s", dimension=2).to_pylist()
    assert rows == [{"face_id": 7, "embedding": [1.0, 0.0]}]
    found = find_embeddings(storage, encoder="e", shard="s", dimension=2)
    assert found is not None
    assert found.rows == 1


def test_a_photo_whose_faces_a_killed_run_could_not_find_is_committed_as_failed(tmp_path: Path) -> None:
    storage, shard = Storage(tmp_path), "a" * 32

    def found(read: Sequence[str]) -> dict[str, pa.Table]:
        photos: list[Row] = [
            {"uri": f"/p/{name}.jpg", "photo_sha256": name * 64, "status": "indexed", "num_faces": 1}
            if name in read
            else {"uri": f"/p/{name}.jpg", "status": "failed", "reason": "cannot be read: OSError", "num_faces": 0}
            for name in "ab"
        ]
        shape = {"box": [0.0] * 4, "landmarks": [0.0] * 10, "score": 1.0, "crop_origin": [0.0] * 2, "crop_scale": 1.0}
        faces: list[Row] = [
            {"face_id": ord(n), "photo_sha256": n * 64, "uri": f"/p/{n}.jpg", "crop": b"", "rotation": 0} | shape
            for n in read
        ]
        return {
            "photos": pa.Table.from_pylist([{n: row.get(n) for n in PHOTOS.names} for row in photos], schema=PHOTOS),
            "faces": pa.Table.from_pylist(faces, schema=FACES),
        }

    def dies(path: str, data: bytes) -> bool:
        if path.startswith("photos/"):
            raise KeyboardInterrupt
        return Storage.create(storage, path, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "create", dies)
        with pytest.raises(KeyboardInterrupt):
            commit_shard(storage, contract=CONTRACT, shard=shard, **found("a"))
    commit_shard(storage, contract=CONTRACT, shard=shard, **found("ab"))
    photos = read_photos(storage, contract=CONTRACT, shard=shard).to_pylist()
    assert [(row["status"], row["num_faces"]) for row in photos] == [("indexed", 1), ("failed", 0)]
    assert "another run of its shard could not read it" in photos[1]["reason"]
    assert read_faces(storage, contract=CONTRACT, shard=shard, columns=["face_id"]).num_rows == 1
