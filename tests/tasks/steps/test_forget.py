import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from store.audit import read_entries, verify_audit
from store.errors import LookalikeError, VersionError
from store.fingerprints import sha256_hex
from store.forgotten import Forgotten, add_forgotten, forgotten_key, read_forgotten, tag
from store.index_file import indexed_ids, load_index
from store.layout import open_store
from store.s3_requests import ask
from store.schemas import VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.storage import Storage
from store.versions import PublishedVersion, read_file, read_version
from tasks.steps import live_filter
from tasks.steps.contract import Contract
from tasks.steps.forget import begin_forget, forget_now, prove_forgotten, purge_store
from tasks.steps.forget_exclude import Wish
from tasks.steps.live_filter import search_known
from tasks.steps.open_version import open_version
from tasks.steps.verify_store import verify_store

pytestmark = pytest.mark.usefixtures("easy_faces")
Paint = Callable[[Path, int | None], Path]
Row = dict[str, Any]
PROJECT = Path(__file__).resolve().parents[3]


def take_photos(folder: Path, paint: Paint) -> Path:
    """Two people with three pictures each, a copy of one picture, and a broken one."""
    for n in range(6):
        paint(folder / ("ann" if n < 3 else "bob") / f"{n}.png", n)
    shutil.copy(folder / "ann" / "1.png", folder / "bob" / "copy.png")
    (folder / "bob" / "broken.png").write_bytes(b"x")
    return folder


def build_two(builder: Any, photos: Path, paint: Paint) -> None:
    """Two versions: the photos, and one more."""
    builder.build(photos, labels="folder")
    paint(photos / "bob" / "9.png", 9)
    builder.build(photos, labels="folder")


@pytest.fixture(scope="module")
def made(
    small_encoder: Any, make_builder: Any, middle_faces: Any, paint: Paint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Path]]:
    """A store of two versions and its photos, made once; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(small_encoder[0], folder / "store")
    builder = make_builder(store=str(folder / "store"), contract=Contract(), encoder=small_encoder[1])
    photos = take_photos(folder / "photos", paint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.steps.find_faces.find_in_photos", middle_faces)
        build_two(builder, photos, paint)
    return builder, photos


@pytest.fixture
def photos(made: tuple[Any, Path]) -> Path:
    return made[1]


@pytest.fixture
def two(made: tuple[Any, Path], tmp_path: Path) -> Any:
    """A copy of the store that a test may change; its photos are everybody's."""
    shutil.copytree(made[0].store, tmp_path / "two")
    return replace(made[0], store=str(tmp_path / "two"))


@pytest.fixture
def own_photos(tmp_path: Path, paint: Paint) -> Path:
    return take_photos(tmp_path / "photos", paint)


@pytest.fixture
def own(builder: Any, own_photos: Path, paint: Paint) -> Any:
    """Such a store with photos of its own, for tests that build again."""
    build_two(builder, own_photos, paint)
    return builder


@pytest.fixture(autouse=True)
def no_prefect_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setattr(live_filter, "FRESH_S", 0.0)


def tables(storage: Storage, number: int) -> tuple[PublishedVersion, list[Row], list[Row]]:
    version = read_version(storage, number)
    photos = from_parquet(read_file(storage, version, "photos.parquet"), VERSION_PHOTOS, where="photos").to_pylist()
    faces = from_parquet(read_file(storage, version, "faces.parquet"), VERSION_FACES, where="faces").to_pylist()
    return version, photos, faces


def names(rows: list[Row]) -> set[str]:
    return {Path(row["uri"]).name for row in rows}


def shown(storage: Storage, number: int, k: int = 20) -> set[int]:
    """The faces that the version shows to anybody."""
    opened, _ = open_version(storage, number)
    query = np.ones((1, 32), np.float32) / np.sqrt(32).astype(np.float32)
    return {identity for identity, _ in search_known(storage, opened.index, opened.faces, query, k=k)[0]}


def everything_holds(storage: Storage, numbers: tuple[int, ...] = (1, 2)) -> None:
    for number in numbers:
        version, photos, faces = tables(storage, number)
        assert len(photos) == version.manifest.photos - version.manifest.counts["forgotten"]
        ids = [row["face_id"] for row in faces]
        index = load_index(read_file(storage, version, "index.faiss"), where="index")
        assert indexed_ids(index).tolist() == ids == sorted(ids)
        assert sum(r["num_faces"] for r in photos if r["status"] == "indexed") == len(faces) == version.manifest.faces
        assert {row["shard"] for row in photos} == {shard.name for shard in version.manifest.shards}
    assert verify_store(storage.uri).problems == []


def traces(root: Path, *words: str) -> list[str]:
    """Files that hold one of the words, Parquet ones decompressed: looked for without the code that is tested."""
    import pyarrow.parquet as pq

    found = []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        text = path.read_bytes()
        if path.suffix == ".parquet":
            text += json.dumps(pq.read_table(path).to_pylist(), default=lambda b: b.hex()).encode()
        found += [f"{path.name}: {word}" for word in words if word.encode() in text]
    return found


def test_a_photo_goes_from_every_version_with_every_name_of_its_bytes(two: Any, photos: Path) -> None:
    storage = open_store(two.store)
    uri = str(photos / "ann" / "1.png")
    (face,) = [row for row in tables(storage, 2)[2] if row["uri"] == uri]
    before = {number: read_version(storage, number).manifest for number in (1, 2)}
    result = forget_now(Wish("photo", uri), store=two.store)
    assert result["verified"]
    assert result["problems"] == []
    assert (result["photos"], result["faces"], result["versions_rewritten"]) == (1, 1, [1, 2])
    assert all(
        result["scan"]["searched"][kind] for kind in ("uri", "face_id", "face_id_bytes", "photo_hash", "crop", "vector")
    )
    assert not any(result["scan"]["hits"].values())
    for number in (1, 2):
        version, rows, faces = tables(storage, number)
        assert names(rows) & {"1.png", "copy.png"} == set()
        assert face["face_id"] not in {row["face_id"] for row in faces}
        assert version.manifest.counts["forgotten"] == 2
        assert version.manifest.photos == before[number].photos
        assert version.manifest.faces == before[number].faces - 1
        assert (version.manifest.revision, version.manifest.build) == (1, before[number].build)
        assert version.manifest.content_sha256 != before[number].content_sha256
    everything_holds(storage)
    words = (uri, "copy.png", str(face["face_id"]), face["photo_sha256"])
    assert traces(Path(two.store), *words) == []
    assert str(uri) not in json.dumps(result)


def test_the_scan_finds_everything_where_the_purge_is_left_out(two: Any, photos: Path) -> None:
    ticket = begin_forget(Wish("photo", str(photos / "ann" / "1.png")), store=two.store)
    from tasks.steps.forget import _begun
    from tasks.steps.forget_scan import scan_store

    hits = scan_store(open_store(two.store), _begun[ticket].needles).hits
    assert all(hits[kind] for kind in ("uri", "face_id_bytes", "photo_hash", "crop", "vector"))


def test_a_face_goes_and_its_photo_stays(two: Any, photos: Path) -> None:
    storage = open_store(two.store)
    uri = str(photos / "ann" / "0.png")
    (face,) = [row for row in tables(storage, 2)[2] if row["uri"] == uri]
    result = forget_now(Wish("face", str(face["face_id"])), store=two.store)
    assert result["verified"]
    assert (result["photos"], result["faces"]) == (0, 1)
    for number in (1, 2):
        _, rows, faces = tables(storage, number)
        (photo,) = [row for row in rows if row["uri"] == uri]
        assert (photo["status"], photo["num_faces"]) == ("no_face", 0)
        assert face["face_id"] not in {row["face_id"] for row in faces}
    everything_holds(storage)


def test_a_label_takes_all_its_photos_and_no_others(two: Any, photos: Path) -> None:
    storage = open_store(two.store)
    result = forget_now(Wish("label", "ann"), store=two.store)
    assert result["verified"]
    assert result["photos"] == 3
    assert result["scan"]["searched"]["label"]
    _, rows, _ = tables(storage, 2)
    assert names(rows) == {"3.png", "4.png", "5.png", "9.png", "broken.png"}
    everything_holds(storage)


def test_a_photo_that_could_not_be_read_is_forgotten_too(two: Any, photos: Path) -> None:
    assert forget_now(Wish("photo", str(photos / "bob" / "broken.png")), store=two.store)["verified"]
    assert "broken.png" not in names(tables(open_store(two.store), 1)[1])
    everything_holds(open_store(two.store))


def test_who_is_not_there_is_refused_and_who_was_forgotten_is_not(two: Any, photos: Path) -> None:
    with pytest.raises(VersionError, match="no version and no shard of .* has a photo of this uri"):
        forget_now(Wish("photo", "/nowhere.png"), store=two.store)
    with pytest.raises(VersionError, match="has a face with this id"):
        forget_now(Wish("face", "7"), store=two.store)
    with pytest.raises(LookalikeError, match="--face is 'ann': wanted a face's id"):
        Wish("face", "ann")
    assert not read_forgotten(open_store(two.store))
    uri = str(photos / "ann" / "1.png")
    assert forget_now(Wish("photo", uri), store=two.store)["versions_rewritten"] == [1, 2]
    again = forget_now(Wish("photo", uri), store=two.store)
    assert (again["versions_rewritten"], again["verified"]) == ([], True)


def test_forgetting_two_after_another_raises_the_revision_twice_and_counts_both(two: Any, photos: Path) -> None:
    storage = open_store(two.store)
    for name in ("0.png", "2.png"):
        assert forget_now(Wish("photo", str(photos / "ann" / name)), store=two.store)["verified"]
    version, rows, _ = tables(storage, 1)
    assert (version.manifest.revision, version.manifest.counts["forgotten"]) == (2, 2)
    assert storage.names("versions/000001") == ["claim", "manifest.json", "r2"]
    assert names(rows) & {"0.png", "2.png"} == set()
    everything_holds(storage)
    entries = read_entries(storage)
    assert [e["sequence"] for e in entries] == [1, 2]
    assert verify_audit(storage) == []


def test_from_the_first_phase_on_no_version_shows_them_and_others_take_their_place(two: Any, photos: Path) -> None:
    storage = open_store(two.store)
    uri = str(photos / "ann" / "1.png")
    (face,) = [row for row in tables(storage, 2)[2] if row["uri"] == uri]
    everybody = shown(storage, 2)
    assert face["face_id"] in everybody
    begin_forget(Wish("photo", uri), store=two.store)
    for number in (1, 2):
        assert face["face_id"] not in shown(storage, number)
    assert shown(storage, 2) == everybody - {face["face_id"]}
    for k in range(1, len(everybody)):
        assert len(shown(storage, 2, k=k)) == k


def test_without_the_filter_they_would_still_be_shown(two: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_store(two.store)
    uri = str(photos / "ann" / "1.png")
    (face,) = [row for row in tables(storage, 2)[2] if row["uri"] == uri]
    begin_forget(Wish("photo", uri), store=two.store)
    monkeypatch.setattr(live_filter, "read_forgotten", lambda storage: Forgotten(key=None, tags=frozenset()))
    monkeypatch.setattr(live_filter, "_read", {})
    assert face["face_id"] in shown(storage, 2)


_READER = """
import sys, time
import numpy as np
from store.layout import open_store
from tasks.steps.live_filter import search_known
from tasks.steps.open_version import open_version
storage, number = open_store(sys.argv[1]), int(sys.argv[2])
opened, _ = open_version(storage, number)
query = np.ones((1, 32), np.float32) / np.float32(np.sqrt(32))
while True:
    found = [i for i, _ in search_known(storage, opened.index, opened.faces, query, k=20)[0]]
    print(time.time(), *found, flush=True)
    time.sleep(0.1)
"""


def test_a_process_that_holds_the_index_open_stops_showing_them_within_five_seconds(two: Any, photos: Path) -> None:
    storage = open_store(two.store)
    uri = str(photos / "ann" / "1.png")
    (face,) = [row for row in tables(storage, 1)[2] if row["uri"] == uri]
    command = [sys.executable, "-c", _READER, two.store, "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as reader:
        assert reader.stdout is not None
        try:
            lines: Iterator[list[str]] = (line.split() for line in reader.stdout)
            assert str(face["face_id"]) in next(lines)
            begin_forget(Wish("photo", uri), store=two.store)
            excluded = time.time()
            purge_store(store=two.store)
            for at, *found in lines:
                if str(face["face_id"]) not in found:
                    assert len(found) > 3
                    break
                assert float(at) < excluded + 5
            later = [next(lines) for _ in range(3)]
            assert all(str(face["face_id"]) not in found for found in later)
        finally:
            reader.kill()


def test_the_same_bytes_are_not_ingested_again_and_a_re_encoded_copy_is(own: Any, own_photos: Path) -> None:
    storage = open_store(own.store)
    uri = own_photos / "ann" / "1.png"
    forget_now(Wish("photo", str(uri)), store=own.store)
    shutil.copy(uri, own_photos / "bob" / "under_another_name.png")
    sink = io.BytesIO()
    Image.open(uri).save(sink, "PNG", compress_level=1)
    (own_photos / "bob" / "encoded_again.png").write_bytes(sink.getvalue())
    tags = read_forgotten(storage).tags
    assert own.build(own_photos) == 3
    version, rows, _ = tables(storage, 3)
    assert "encoded_again.png" in names(rows)
    assert names(rows) & {"1.png", "copy.png", "under_another_name.png"} == set()
    assert version.manifest.counts["forgotten"] >= 1
    assert len(read_forgotten(storage).tags) > len(tags)  # the new name is known without reading it from now on
    assert traces(Path(own.store) / "versions", "under_another_name") == []
    assert traces(Path(own.store) / "photos", "under_another_name") == []
    everything_holds(storage, (1, 2, 3))


def test_a_forgotten_face_is_not_found_again_where_the_photo_is_searched_anew(
    own: Any, own_photos: Path, paint: Paint
) -> None:
    storage = open_store(own.store)
    uri = own_photos / "ann" / "0.png"
    (face,) = [row for row in tables(storage, 2)[2] if row["uri"] == str(uri)]
    forget_now(Wish("face", str(face["face_id"])), store=own.store)
    shutil.copy(uri, own_photos / "again.png")
    own.build(own_photos)
    _, rows, faces = tables(storage, 3)
    assert face["face_id"] not in {row["face_id"] for row in faces}
    (photo,) = [row for row in rows if row["uri"] == str(own_photos / "again.png")]
    assert (photo["status"], photo["num_faces"]) == ("no_face", 0)


def test_a_build_under_way_does_not_bring_them_back(own: Any, own_photos: Path, paint: Paint) -> None:
    from tasks.steps.check_version import check_version
    from tasks.steps.publish_version import publish_version

    paint(own_photos / "ann" / "7.png", 7)
    plan = own.plan(own_photos)
    checked = check_version(own.draft(plan), store=own.store)
    begin_forget(Wish("photo", str(own_photos / "ann" / "1.png")), store=own.store)
    with pytest.raises(
        VersionError,
        match="somebody was forgotten while this build was running, or is not forgotten to the end: run `lookalike forget --resume`",
    ):
        publish_version(checked.draft, store=own.store, plan=plan)
    purge_store(store=own.store)
    everything_holds(open_store(own.store))
    assert own.build(own_photos) == 3
    assert "1.png" not in names(tables(open_store(own.store), 3)[1])


class DyingAt(Storage):
    """Raises before the n-th change; `left` says how many changes there were."""

    left = 0

    def changing(self, change: Callable[[], Any]) -> Any:
        DyingAt.left -= 1
        if DyingAt.left == 0:
            raise KeyboardInterrupt
        return change()

    def write(self, path: str, data: bytes) -> None:
        self.changing(lambda: super(DyingAt, self).write(path, data))

    def create(self, path: str, data: bytes) -> bool:
        return bool(self.changing(lambda: super(DyingAt, self).create(path, data)))

    def swap(self, path: str, data: bytes, *, expected: bytes | None) -> bool:
        return bool(self.changing(lambda: super(DyingAt, self).swap(path, data, expected=expected)))

    def remove(self, path: str) -> None:
        self.changing(lambda: super(DyingAt, self).remove(path))


def test_a_forget_killed_at_any_change_is_finished_by_the_next(
    two: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(photos / "ann" / "1.png")
    (face,) = [row for row in tables(open_store(two.store), 2)[2] if row["uri"] == uri]
    words = (uri, "copy.png", str(face["face_id"]), face["photo_sha256"])
    monkeypatch.setattr("tasks.steps.forget.open_store", DyingAt)
    n, finished = 1, False
    while not finished:
        store = tmp_path / "killed" / f"{n}"
        shutil.copytree(two.store, store)
        DyingAt.left = n
        try:
            forget_now(Wish("photo", uri), store=str(store))
            finished = True
        except KeyboardInterrupt:
            pass
        DyingAt.left = 0
        # before the tags are written there is nothing to finish but the wish itself
        began = bool(read_forgotten(Storage(store)))
        result = forget_now(None if began and n % 2 else Wish("photo", uri), store=str(store))
        assert result["verified"]
        assert traces(store, *words) == [], f"killed at change {n}"
        for number in (1, 2):
            version, _, _ = tables(open_store(str(store)), number)
            assert version.manifest.counts["forgotten"] == 2
        shutil.rmtree(store)
        n += 1
    assert n > 20


def test_prefect_s_database_and_results_lose_them(two: Any, photos: Path, tmp_path: Path) -> None:
    import sqlite3

    uri = str(photos / "ann" / "1.png")
    home = tmp_path / "prefect"
    (home / "storage").mkdir(parents=True)
    (home / "storage" / "result").write_text(json.dumps({"image": uri}))
    (home / "storage" / "other").write_text("{}")
    database = sqlite3.connect(home / "prefect.db")
    database.execute("CREATE TABLE flow_run (name TEXT, parameters JSON)")
    database.execute("INSERT INTO flow_run VALUES (?, ?)", (f"query {uri}", json.dumps({"image": uri, "k": 3})))
    database.execute("INSERT INTO flow_run VALUES (?, ?)", ("query other", json.dumps({"label": "ann"})))
    database.commit()
    database.close()
    assert forget_now(Wish("photo", uri), store=two.store)["verified"]
    assert uri.encode() not in (home / "prefect.db").read_bytes()
    assert not (home / "storage" / "result").exists()
    assert (home / "storage" / "other").exists()
    database = sqlite3.connect(home / "prefect.db")
    rows = database.execute("SELECT * FROM flow_run").fetchall()
    database.close()
    assert rows == [("query forgotten", '{"image": "forgotten", "k": 3}'), ("query other", '{"label": "ann"}')]


def test_a_database_that_was_not_cleaned_is_no_proof(
    two: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(photos / "ann" / "1.png")
    (tmp_path / "prefect" / "storage").mkdir(parents=True)
    (tmp_path / "prefect" / "storage" / "result").write_text(uri)
    monkeypatch.setattr("tasks.steps.forget.redact_prefect", lambda needles: 0)
    result = forget_now(Wish("photo", uri), store=two.store)
    assert not result["verified"]
    assert result["problems"] == ["1 needles of the kind uri were found"]


def test_what_was_looked_for_is_known_to_its_own_process_only(two: Any, photos: Path) -> None:
    ticket = begin_forget(Wish("photo", str(photos / "ann" / "1.png")), store=two.store)
    assert len(ticket) == 16
    purged = purge_store(store=two.store)
    elsewhere = prove_forgotten("another process's", store=two.store, purged=purged)
    assert elsewhere["resumed"]
    assert elsewhere["verified"]
    assert not any(elsewhere["scan"]["searched"].values())


def test_crops_for_training_and_sheets_leave_them_out(two: Any, photos: Path) -> None:
    from tasks.steps.labelled_faces import labelled_faces

    storage = open_store(two.store)
    plan = two.plan(photos, labels="folder")
    before, _ = labelled_faces(storage, plan, contract=two.contract.id)
    begin_forget(Wish("label", "ann"), store=two.store)
    after, labels = labelled_faces(storage, plan, contract=two.contract.id)
    assert set(labels) == {"bob"}
    assert len(before) == 7
    assert len(after) == 4


def test_on_s3_old_versions_of_objects_and_uploads_go_too(two: Any, photos: Path, s3: str) -> None:
    storage = Storage(f"{s3}/store")
    bucket, prefix = s3.removeprefix("s3://").split("/", 1)
    ask("put_bucket_versioning", f"s3://{bucket}", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for path in Path(two.store).rglob("*"):
        if path.is_file() and "runs" not in path.parts:
            storage.write(str(path.relative_to(two.store)), path.read_bytes())
    ask("create_multipart_upload", storage.uri, Bucket=bucket, Key=f"{prefix}/store/faces/half")
    uri = str(photos / "ann" / "1.png")
    result = forget_now(Wish("photo", uri), store=storage.uri)
    assert result["verified"]
    assert result["versions_rewritten"] == [1, 2]
    everything_holds(storage)
    listed = ask("list_object_versions", storage.uri, Bucket=bucket, Prefix=f"{prefix}/store/").fields
    assert not listed.get("DeleteMarkers")
    assert all(one["IsLatest"] for one in listed["Versions"])
    assert not ask("list_multipart_uploads", storage.uri, Bucket=bucket, Prefix=prefix).fields.get("Uploads")
    everything = b"".join(
        ask("get_object", storage.uri, Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"]).body
        for one in listed["Versions"]
    )
    assert uri.encode() not in everything


def test_nothing_is_touched_where_nobody_was_forgotten(two: Any) -> None:
    storage = open_store(two.store)
    storage.write("runs/training/job/checkpoint.json", b"{}")
    result = forget_now(None, store=two.store)
    assert (result["resumed"], result["verified"], result["versions_rewritten"]) == (True, True, [])
    assert storage.exists("runs/training/job/checkpoint.json")


def test_a_shard_that_was_computed_while_somebody_was_forgotten_is_not_kept(
    own: Any, own_photos: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.steps import find_faces as step

    new = paint(own_photos / "ann" / "8.png", 8)
    sha256 = sha256_hex(new.read_bytes())
    commit = step.commit_shard

    def overtaken(storage: Storage, **what: Any) -> Any:
        done = commit(storage, **what)
        add_forgotten(storage, [tag(forgotten_key(storage), "photo", sha256)])
        return done

    monkeypatch.setattr(step, "commit_shard", overtaken)
    plan = own.plan(own_photos)
    with pytest.raises(LookalikeError, match="somebody was forgotten while this shard was computed; run the same"):
        own.draft(plan)
    monkeypatch.setattr(step, "commit_shard", commit)
    assert traces(Path(own.store) / "photos", sha256) == []
    own.build(own_photos)
    assert "8.png" not in names(tables(open_store(own.store), 3)[1])


def test_somebody_forgotten_at_the_very_moment_of_a_publish_is_gone_when_it_ends(
    own: Any, own_photos: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.steps import publish_version as step

    paint(own_photos / "ann" / "8.png", 8)
    uri, publish = str(own_photos / "ann" / "1.png"), step.publish

    def overtaken(storage: Storage, **what: Any) -> Any:
        begin_forget(Wish("photo", uri), store=own.store)
        return publish(storage, **what)

    monkeypatch.setattr(step, "publish", overtaken)
    assert own.build(own_photos) == 3
    assert "1.png" not in names(tables(open_store(own.store), 3)[1])
    assert traces(Path(own.store), uri) == []
    everything_holds(open_store(own.store), (1, 2, 3))


def test_verify_tells_of_a_changed_record(two: Any, photos: Path) -> None:
    forget_now(Wish("photo", str(photos / "ann" / "1.png")), store=two.store)
    storage = open_store(two.store)
    storage.write("audit/000001.json", storage.read("audit/000001.json").replace(b'"photos": 1', b'"photos": 0'))
    assert [(p.path, p.kind) for p in verify_store(two.store).problems] == [("audit/000001.json", "audit")]
