import json
from pathlib import Path
from typing import Any

import pytest

from store.audit import read_entries, verify_audit
from store.errors import LookalikeError, VersionError
from store.forgotten import read_forgotten
from store.layout import open_store
from store.s3_requests import ask
from store.storage import Storage
from store.versions import read_version
from tasks.steps.forget import begin_forget, forget_now, prove_forgotten, purge_store
from tasks.steps.forget_exclude import Wish
from tasks.steps.verify_store import verify_store
from tests.tasks.steps.forget.read_back import everything_holds, names, tables, traces

pytestmark = pytest.mark.usefixtures("easy_faces")


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


def test_verify_tells_of_a_changed_record(two: Any, photos: Path) -> None:
    forget_now(Wish("photo", str(photos / "ann" / "1.png")), store=two.store)
    storage = open_store(two.store)
    storage.write("audit/000001.json", storage.read("audit/000001.json").replace(b'"photos": 1', b'"photos": 0'))
    assert [(p.path, p.kind) for p in verify_store(two.store).problems] == [("audit/000001.json", "audit")]
