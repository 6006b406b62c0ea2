"""What a build makes of photos that come, change and go, against a build of the same photos from nothing."""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import ArtifactError
from store.fingerprints import fingerprint, sha256_hex
from store.forgotten import add_forgotten, forgotten_key, tag
from store.layout import embeddings_path, faces_path, open_store, photos_path
from store.schemas import VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.shards import read_faces, read_photos, read_vectors
from store.versions import current_number, read_file, read_version
from tasks.steps.compact_shards import compact_shards
from tasks.steps.find_faces import shard_of
from tasks.steps.plan_compaction import MANY
from tasks.steps.verify_store import verify_store

pytestmark = pytest.mark.usefixtures("easy_faces")
Paint = Callable[[Path, int | None], Path]


def content(builder: Any) -> str:
    return str(read_version(open_store(builder.store)).manifest.content_sha256)


def fresh(builder: Any, store: Path, *sources: Path) -> Any:
    """The same builder on a store that knows nothing, after a build of the sources."""
    shutil.copytree(Path(builder.store) / "encoders", store / "encoders")
    other = replace(builder, store=str(store), shard_photos=5)
    for source in sources:
        other.build(source)
    return other


def shards_of(builder: Any) -> set[str]:
    return {shard.name for shard in read_version(open_store(builder.store)).manifest.shards}


@pytest.mark.parametrize("seed", range(2))
def test_whatever_came_changed_and_went_the_content_is_that_of_a_build_from_nothing(
    builder: Any, paint: Paint, tmp_path: Path, seed: int
) -> None:
    rng, number = random.Random(seed), iter(range(100 * seed, 10_000))
    builder = replace(builder, shard_photos=4)
    sources = [tmp_path / "a", tmp_path / "b"]
    for source in sources:
        for _ in range(4):
            paint(source / f"{next(number)}.png", next(number))
    for step in range(6):
        source = sources[step % 2]
        for _ in range(rng.randint(1, 3)):
            there = sorted(source.glob("*.png"))
            chosen = rng.choice(there)
            what = rng.choice(["add", "add", "change", "remove", "touch", "twin", "spoil"])
            if what == "add":
                paint(source / f"{next(number)}.png", next(number))
            elif what == "change":
                paint(chosen, next(number))
            elif what == "remove" and len(there) > 2:
                chosen.unlink()
            elif what == "touch":
                os.utime(chosen, ns=(1, rng.randrange(10**18)))
            elif what == "twin":
                shutil.copy(chosen, rng.choice(sources) / f"twin{next(number)}.png")
            elif what == "spoil":
                chosen.write_bytes(b"no photo any more")
        builder.build(source)
    for source in sources:
        builder.build(source)
    other = fresh(builder, tmp_path / "fresh", *sources)
    assert content(builder) == content(other)
    assert verify_store(builder.store).problems == []
    same_faces(builder, other)


def same_faces(builder: Any, other: Any) -> None:
    """Every face shows the same and has the same embedding, up to where its row stands."""
    tables = []
    for one in (builder, other):
        storage = open_store(one.store)
        version = read_version(storage)
        faces = from_parquet(read_file(storage, version, "faces.parquet"), VERSION_FACES, where="faces")
        vectors = {}
        for shard in version.manifest.shards:
            ids_N, vectors_ND = read_vectors(storage, encoder=one.encoder.id, shard=shard.name, dimension=32)
            vectors |= dict(zip(ids_N.tolist(), vectors_ND, strict=True))
        tables.append((faces.drop(["shard"]).to_pylist(), vectors))
    (rows, vectors), (other_rows, other_vectors) = tables
    assert rows == other_rows
    for row in rows:
        np.testing.assert_array_equal(vectors[row["face_id"]], other_vectors[row["face_id"]])


def test_the_rows_of_a_removed_photo_stay_in_no_shard_of_the_next_version(
    builder: Any, paint: Paint, tmp_path: Path
) -> None:
    source, builder = tmp_path / "photos", replace(builder, shard_photos=256)
    for n in range(6):
        paint(source / f"{n}.png", n)
    builder.build(source)
    before = next(iter(shards_of(builder)))
    assert shards_of(builder) == {before}
    gone = source / "2.png"
    gone_hash = sha256_hex(gone.read_bytes())
    gone.unlink()
    plan = builder.plan(source)
    assert plan.requests == plan.kept == ()
    assert [ref.rows for ref in plan.compactions] == [5]
    builder.build(source)
    (after,) = shards_of(builder)
    assert after != before
    storage, contract = open_store(builder.store), builder.contract.id
    assert str(gone) not in read_photos(storage, contract=contract, shard=after)["uri"].to_pylist()
    assert gone_hash not in read_faces(storage, contract=contract, shard=after)["photo_sha256"].to_pylist()
    assert gone_hash in read_faces(storage, contract=contract, shard=before)["photo_sha256"].to_pylist()
    read_vectors(storage, encoder=builder.encoder.id, shard=after, dimension=32)
    assert content(builder) == content(fresh(builder, tmp_path / "fresh", source))


def test_a_photo_that_is_left_of_two_with_the_same_bytes_is_shown_under_its_own_name(
    builder: Any, paint: Paint, tmp_path: Path
) -> None:
    source = tmp_path / "photos"
    paint(source / "a.png", 1)
    paint(source / "c.png", 2)
    shutil.copy(source / "a.png", source / "b.png")
    builder.build(source)
    (source / "a.png").unlink()
    builder.build(source)
    (shard,) = shards_of(builder)
    table = read_faces(open_store(builder.store), contract=builder.contract.id, shard=shard)
    assert {Path(uri).name for uri in table["uri"].to_pylist()} == {"b.png", "c.png"}
    assert content(builder) == content(fresh(builder, tmp_path / "fresh", source))


def test_small_shards_are_merged_when_there_are_many_and_no_photo_is_read(
    builder: Any, paint: Paint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "photos"
    for n in range(MANY + 1):
        paint(source / f"{n:02}.png", n)
        builder.build(source)
    assert len(shards_of(builder)) == MANY + 1
    paint(source / "new.png", 1_000)
    plan = builder.plan(source)
    assert sum(ref.rows for ref in plan.compactions) in {MANY, MANY + 1}  # one may be left that is a shard already
    assert sum(ref.rows for ref in plan.requests) == 1
    builder.build(source)
    assert len(shards_of(builder)) <= 4
    monkeypatch.setattr("tasks.steps.find_faces.read_uri", lambda *_, **__: pytest.fail("a photo was read"))
    assert not builder.plan(source).needed
    assert verify_store(builder.store).problems == []


def test_a_compaction_that_was_killed_half_way_is_made_by_the_next_one(
    builder: Any, paint: Paint, tmp_path: Path
) -> None:
    source = tmp_path / "photos"
    for n in range(4):
        paint(source / f"{n}.png", n)
    builder.build(source)
    (source / "1.png").unlink()
    plan = builder.plan(source)
    (request,) = plan.compactions
    call = {"store": builder.store, "contract": builder.contract.id, "parent": 1, "encoder": builder.encoder}
    done = compact_shards(request, **call)
    storage, shard = open_store(builder.store), shard_of(request)
    storage.remove(embeddings_path(builder.encoder.id, shard))  # as if killed before they were written
    assert compact_shards(request, **call) == done
    storage.remove(embeddings_path(builder.encoder.id, shard))
    storage.remove(photos_path(builder.contract.id, shard))  # as if killed before the shard was committed
    assert compact_shards(request, **call) == done
    assert storage.exists(embeddings_path(builder.encoder.id, shard))


def test_rows_are_carried_only_from_files_that_are_what_the_version_recorded(
    builder: Any, paint: Paint, tmp_path: Path
) -> None:
    source = tmp_path / "photos"
    for n in range(4):
        paint(source / f"{n}.png", n)
    builder.build(source)
    (before,) = shards_of(builder)
    (source / "1.png").unlink()
    path = Path(builder.store) / faces_path(builder.contract.id, before)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"has changed: its sha256 is .*; it is not used"):
        builder.build(source)
    assert current_number(open_store(builder.store)) == 1


def test_retrying_failures_looks_at_nothing_else(builder: Any, paint: Paint, tmp_path: Path) -> None:
    listing, photo, late = tmp_path / "list.txt", paint(tmp_path / "a.png", 1), tmp_path / "late.png"
    listing.write_text(f"{photo}\n{late}\n")
    builder.build(listing)
    paint(late, 2)
    paint(photo, 3)
    new = paint(tmp_path / "new.png", 4)
    listing.write_text(f"{late}\n{new}\n")
    plan = builder.plan(listing, look_at="failed")
    assert {name: n for name, n in plan.counts.as_json().items() if n} == {"changed": 1}
    builder.build(listing, look_at="failed")
    assert statuses(builder) == {"a.png": "indexed", "late.png": "indexed"}
    again = builder.plan(listing, look_at="failed")
    assert not again.needed
    builder.build(listing)
    assert statuses(builder) == {"late.png": "indexed", "new.png": "indexed"}


def test_a_failure_that_is_listed_as_it_was_is_tried_again_alone(builder: Any, paint: Paint, tmp_path: Path) -> None:
    source = tmp_path / "photos"
    photo, broken = paint(source / "a.png", 1), paint(source / "b.png", 2)
    data, stamp = broken.read_bytes(), broken.stat()

    def put(content: bytes) -> None:
        broken.write_bytes(content)
        os.utime(broken, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    plan = builder.plan(source)
    put(data[:-1])  # one byte is missing when it is read
    builder.draft(plan)
    put(data)
    builder.build(source)
    assert statuses(builder) == {"a.png": "indexed", "b.png": "failed"}
    paint(photo, 3)
    plan = builder.plan(source, look_at="failed")
    assert {name: n for name, n in plan.counts.as_json().items() if n} == {"failed": 1}
    builder.build(source, look_at="failed")
    assert statuses(builder) == {"a.png": "indexed", "b.png": "indexed"}


def test_looking_at_hashes_finds_bytes_that_changed_behind_an_old_stamp(
    builder: Any, paint: Paint, tmp_path: Path
) -> None:
    source = tmp_path / "photos"
    photo, _ = paint(source / "a.png", 1), paint(source / "b.png", 2)
    builder.build(source)
    before = content(builder)
    stamp, data = photo.stat(), bytearray(photo.read_bytes())
    data[-5] ^= 1  # in the checksum of the last chunk
    photo.write_bytes(data)
    os.utime(photo, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert not builder.plan(source).needed
    plan = builder.plan(source, look_at="hashes")
    assert {name: n for name, n in plan.counts.as_json().items() if n} == {"changed": 1, "unchanged": 1}
    builder.build(source, look_at="hashes")
    assert content(builder) != before
    assert content(builder) == content(fresh(builder, tmp_path / "fresh", source))
    assert not builder.plan(source, look_at="hashes").needed


def test_forgotten_photos_are_counted_and_have_no_row(builder: Any, paint: Paint, tmp_path: Path) -> None:
    source = tmp_path / "photos"
    photo, _ = paint(source / "a.png", 1), paint(source / "b.png", 2)
    storage, stat = open_store(builder.store, create=True), photo.stat()
    seen = fingerprint(str(photo), size=stat.st_size, etag=None, mtime_ns=stat.st_mtime_ns)
    add_forgotten(storage, [tag(forgotten_key(storage), "listed", seen)])
    plan = builder.plan(source)
    assert {name: n for name, n in plan.counts.as_json().items() if n} == {"added": 1, "forgotten": 1}
    builder.build(source)
    manifest = read_version(storage).manifest
    assert (manifest.photos, manifest.counts["forgotten"], manifest.counts["indexed"]) == (2, 1, 1)
    assert statuses(builder) == {"b.png": "indexed"}
    assert not builder.plan(source).needed
    assert verify_store(builder.store).problems == []


def statuses(builder: Any) -> dict[str, str]:
    storage = open_store(builder.store)
    data = read_file(storage, read_version(storage), "photos.parquet")
    rows = from_parquet(data, VERSION_PHOTOS, where="photos").to_pylist()
    return {Path(row["uri"]).name: row["status"] for row in rows}
