import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from store import s3_files, s3_objects
from store.errors import ArtifactError, RefusedError, SourceError, StoreError, VersionError
from store.fingerprints import sha256_hex
from store.layout import open_store
from store.s3_requests import ask
from store.sources import check_source, list_source, read_asked, read_uri
from store.storage import Storage
from store.versions import current_number, publish, published_numbers, read_file, read_version

SUFFIXES = frozenset({".jpg", ".png"})


@pytest.fixture
def storage(s3: str) -> Storage:
    return Storage(f"{s3}/store")


def test_files_are_written_read_listed_and_removed(storage: Storage) -> None:
    assert storage.names() == []
    assert not storage.exists("a/b")
    storage.write("a/b", b"one")
    storage.write("a/b", b"two")
    storage.write("a/c/d", b"")
    assert storage.read("a/b", sha256=sha256_hex(b"two")) == b"two"
    assert storage.names("a") == ["b", "c"]
    assert storage.exists("a/b")
    assert storage.exists("a")
    storage.remove("a/b")
    storage.remove("a/never")
    assert storage.names("a") == ["c"]
    storage.remove("a")
    assert storage.names() == []
    assert storage.path_of(storage.uri_of("x/y")) == "x/y"


def test_what_is_missing_or_has_changed_is_refused(storage: Storage) -> None:
    with pytest.raises(ArtifactError, match=r"s3://faces/.*/a is missing from the store"):
        storage.read("a")
    storage.write("a", b"one")
    with pytest.raises(ArtifactError, match=r"s3://faces/.*/a has changed: its sha256 is"):
        storage.read("a", sha256=sha256_hex(b"two"))


def test_create_is_exclusive(storage: Storage) -> None:
    assert storage.create("a", b"first")
    assert not storage.create("a", b"second")
    assert storage.read("a") == b"first"


def test_of_racing_creates_and_swaps_each_time_one_wins(storage: Storage) -> None:
    start = threading.Barrier(6)

    def one(n: int, made: str, swapped: str) -> tuple[bool, bool]:
        mine = Storage(storage.uri)
        start.wait()
        return mine.create(made, b"%d" % n), mine.swap(swapped, b"%d" % n, expected=b"before")

    with ThreadPoolExecutor(6) as pool:
        for attempt in range(10):
            paths = (f"made-{attempt}", f"swapped-{attempt}")
            storage.create(paths[1], b"before")
            results = list(pool.map(lambda n, paths=paths: one(n, *paths), range(6)))  # type: ignore[misc]
            for path, won in zip(paths, zip(*results, strict=True), strict=True):
                assert sum(won) == 1
                assert storage.read(path) == b"%d" % won.index(True)


def test_swap_wants_what_it_expects(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not storage.swap("a", b"new", expected=b"old")
    assert storage.swap("a", b"old", expected=None)
    assert not storage.swap("a", b"new", expected=None)
    assert not storage.swap("a", b"new", expected=b"other")
    assert storage.swap("a", b"new", expected=b"old")
    assert storage.read("a") == b"new"
    looked = s3_files.fetch_object

    def overtaken(uri: str) -> tuple[bytes, str]:
        found: tuple[bytes, str] = looked(uri)
        monkeypatch.undo()
        storage.write("a", b"theirs")
        return found

    monkeypatch.setattr(s3_files, "fetch_object", overtaken)
    assert not storage.swap("a", b"mine", expected=b"new")
    assert storage.read("a") == b"theirs"


def test_large_files_go_up_in_parts_are_copied_by_s3_and_come_down_by_ranges(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_objects, "PART_BYTES", 5 * 2**20)  # the least that S3 takes
    monkeypatch.setattr(s3_files, "_ONE_PUT", 6 * 2**20)
    data = os.urandom(11 * 2**20)
    (tmp_path / "up").write_bytes(data)
    storage.upload("large", tmp_path / "up")
    assert storage.size("large") == len(data)
    storage.copy("large", "second")
    for path in ("large", "second"):
        storage.download(path, tmp_path / "down", sha256=sha256_hex(data))
        assert storage.read(path, sha256=sha256_hex(data)) == data
        assert b"".join(storage.chunks(path, chunk_bytes=2**22)) == data
    assert storage.read_range("large", 5, 2**21) == data[5 : 2**21]
    assert storage.read_range("large", len(data) - 3, len(data) + 9) == data[-3:]
    assert storage.read_range("large", len(data), len(data) + 9) == b""
    assert storage.abort_leftover_uploads(older_than=timedelta(0)) == 0
    storage.write("runs/larger", data)
    assert storage.read("runs/larger") == data


def test_uploads_that_nobody_completed_are_taken_back(storage: Storage) -> None:
    bucket, key = s3_objects.split_uri(f"{storage.uri}/runs/left")
    ask("create_multipart_upload", storage.uri, Bucket=bucket, Key=key)
    ask("create_multipart_upload", storage.uri, Bucket=bucket, Key=f"{key}-too")
    assert storage.abort_leftover_uploads("runs", older_than=timedelta(hours=1)) == 0
    assert storage.abort_leftover_uploads("runs/left", older_than=timedelta(0)) == 1
    assert storage.abort_leftover_uploads(older_than=timedelta(0)) == 1


def test_a_stamp_and_a_time_tell_of_change(storage: Storage) -> None:
    assert storage.stamp("a") is None
    assert storage.modified_s("a") is None
    storage.write("a", b"one")
    first = storage.stamp("a")
    assert storage.stamp("a") == first
    assert abs((storage.modified_s("a") or 0) - time.time()) < 60
    storage.write("a", b"two")
    assert storage.stamp("a") != first


def test_old_versions_in_a_bucket_that_keeps_them_go_for_good(storage: Storage, s3: str) -> None:
    bucket = f"versioned-{s3[-12:]}"
    ask("create_bucket", bucket, Bucket=bucket)
    ask("put_bucket_versioning", bucket, Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    kept = Storage(f"s3://{bucket}/store")
    for data in (b"one", b"two"):
        kept.write("a", data)
        kept.write("sub/b", data)
    kept.remove("sub")
    assert kept.remove_old_versions("sub") >= 3
    assert kept.remove_old_versions() == 1
    left = ask("list_object_versions", bucket, Bucket=bucket).fields
    assert [one["Key"] for one in left["Versions"]] == ["store/a"]
    assert left.get("DeleteMarkers", []) == []
    assert kept.read("a") == b"two"


def test_a_store_is_opened_made_and_refused(storage: Storage, s3: str) -> None:
    with pytest.raises(StoreError, match=r"there is no store at s3://faces/.*: run `lookalike build"):
        open_store(storage.uri)
    open_store(storage.uri, create=True)
    storage.write("versions/x", b"")
    assert open_store(f"{storage.uri}/").uri == storage.uri
    Storage(f"{s3}/photos").write("a.jpg", b"")
    with pytest.raises(StoreError, match=r"is not a store: it holds a.jpg"):
        open_store(f"{s3}/photos", create=True)
    with pytest.raises(RefusedError, match=r"s3://nobodys-bucket/x: there is no bucket nobodys-bucket: make it first"):
        open_store("s3://nobodys-bucket/x", create=True)


def test_photos_under_a_prefix_are_listed_without_hidden_ones_siblings_and_the_store(s3: str) -> None:
    bucket = Storage(s3)
    names = ["in/a.jpg", "in/sub/b.PNG", "in/who?.jpg", "in/.hidden/c.jpg", "in/.d.jpg", "in/notes.md"]
    for name in [*names, "in/store/runs/e.jpg", "in2/f.jpg", "in/ä b.jpg"]:
        bucket.write(name, name.encode())
    found = list_source(f"{s3}/in/", suffixes=SUFFIXES, store_uri=f"{s3}/in/store")
    assert found.source == f"{s3}/in"
    assert [p.uri for p in found.photos] == [f"{s3}/in/{n}" for n in ("a.jpg", "sub/b.PNG", "who?.jpg", "ä b.jpg")]
    assert found.ignored == 1
    assert all(p.etag and p.mtime_ns is None for p in found.photos)
    assert [read_uri(p.uri, max_bytes=100).decode() for p in found.photos] == [
        p.uri.split(f"{s3}/")[1] for p in found.photos
    ]
    assert [p.size for p in found.photos] == [8, 12, 11, 11]
    bucket.write("in/a.jpg", b"changed!")
    again = list_source(f"{s3}/in", suffixes=SUFFIXES)
    assert again.photos[0].etag != found.photos[0].etag
    assert again.photos[0].size == 8


def test_sources_that_are_missing_or_hold_no_photo_are_refused(s3: str) -> None:
    with pytest.raises(SourceError, match=r"the source s3://faces/.*/nowhere does not exist"):
        list_source(f"{s3}/nowhere", suffixes=SUFFIXES)
    Storage(s3).write("in/notes.md", b"")
    with pytest.raises(SourceError, match=r"holds 1 files but no photo"):
        list_source(f"{s3}/in", suffixes=SUFFIXES)
    with pytest.raises(SourceError, match=r"cannot be listed: s3://nobodys-bucket/x: there is no bucket"):
        list_source("s3://nobodys-bucket/x", suffixes=SUFFIXES)
    check_source(f"{s3}/nowhere", suffixes=SUFFIXES)  # looked at when it is listed


def test_a_list_in_a_bucket_names_photos_beside_it_and_elsewhere(s3: str, tmp_path: Path) -> None:
    bucket = Storage(s3)
    bucket.write("in/a.jpg", b"a")
    (tmp_path / "b.jpg").write_bytes(b"bb")
    bucket.write("in/list.txt", f"a.jpg\n{tmp_path}/b.jpg\n{s3}/in/gone.jpg\n".encode())
    found = list_source(f"{s3}/in/list.txt", suffixes=SUFFIXES)
    sizes = {p.uri: p.size for p in found.photos}
    assert sizes == {f"{s3}/in/a.jpg": 1, f"{tmp_path}/b.jpg": 2, f"{s3}/in/gone.jpg": 0}
    assert read_asked(f"{s3}/in/a.jpg", max_bytes=10) == b"a"
    with pytest.raises(SourceError, match=r"the list s3://.*/none.txt cannot be read \(FileNotFoundError"):
        list_source(f"{s3}/none.txt", suffixes=SUFFIXES)


@pytest.mark.timeout(300)
def test_photos_in_a_bucket_become_a_version_in_a_bucket_that_answers(s3: str, tmp_path: Path) -> None:
    from tasks.steps.check_version import check_version
    from tasks.steps.contract import Contract
    from tasks.steps.draw_people import draw_people
    from tasks.steps.embed_faces import embed_faces
    from tasks.steps.find_faces import find_faces
    from tasks.steps.list_photos import list_photos
    from tasks.steps.plan_build import plan_build
    from tasks.steps.publish_version import publish_version
    from tasks.steps.query_photo import query_photo
    from tasks.steps.read_crops import read_crops
    from tasks.steps.resolve_encoder import resolve_encoder
    from tasks.steps.train_encoder import NetworkSettings, new_encoder
    from tasks.steps.write_index import write_index

    store, contract = f"{s3}/store", Contract()
    paths = draw_people(tmp_path, people=range(3), views=range(2), seed=3, workers=1)
    for path in paths:
        Storage(f"{s3}/photos").write(str(path.relative_to(tmp_path)), path.read_bytes())
    encoder = resolve_encoder(new_encoder(store, settings=NetworkSettings(width=0.25, dimension=16)), store=store)

    def plan():  # type: ignore[no-untyped-def]
        listed = list_photos(f"{s3}/photos", store=store)
        return plan_build(listed, store=store, contract=contract, encoder=encoder.id, labels="folder", shard_photos=4)

    first, late = plan(), plan()
    for ref in first.requests:
        embed_faces(find_faces(ref, store=store, contract=contract), store=store, contract=contract.id, encoder=encoder)
    checked, overtaken = (
        check_version(write_index(p, store=store, contract=contract, encoder=encoder), store=store)
        for p in (first, late)
    )
    assert publish_version(checked.draft, store=store, plan=first) == 1
    with pytest.raises(VersionError, match="version 1 was published while this build, planned on an empty store"):
        publish_version(overtaken.draft, store=store, plan=late)
    storage = open_store(store)
    assert published_numbers(storage) == [current_number(storage)] == [1]
    assert plan().needed is False
    answer = query_photo(f"{s3}/photos/{paths[3].relative_to(tmp_path)}", store=store, k=2)
    best = answer.faces[0].matches[0]
    assert best.uri == f"{s3}/photos/{paths[3].relative_to(tmp_path)}"
    assert best.cosine > 0.99
    assert best.label == paths[3].parent.name
    assert set(read_crops(answer, store=store)) == {m.face_id for m in answer.faces[0].matches}

    version = read_version(storage)
    files = {name: read_file(storage, version, name) for name in version.manifest.files}
    for name, data in files.items():
        storage.write(f"runs/again/{name}", data)
    staged = {name: f"runs/again/{name}" for name in files}
    again = version.manifest.model_copy(update={"build": "another", "parent": 1})
    assert publish(storage, staged=staged, manifest=again, parent=1).number == 2
    assert current_number(storage) == 2
