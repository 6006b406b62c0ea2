"""Versions that are kept as changes to another: what they say, against the same versions written whole."""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from store import local_files, verified_files, versions
from store.errors import ArtifactError, ManifestError
from store.index_search import NOBODY, indexed_ids, search
from store.layout import open_store
from store.manifest import parse_manifest
from store.schemas import LEFT, PLAN, VERSION_PHOTOS, from_parquet, to_parquet
from store.storage import Storage
from store.version_files import (
    OF_CHANGES,
    OF_THE_BASE,
    face_rows,
    photo_rows,
    read_faces_of,
    read_photos_of,
)
from store.versions import read_file, read_version
from tasks.steps.check_version import check_version
from tasks.steps.diff_versions import diff_versions
from tasks.steps.export_faces import export_faces
from tasks.steps.forget import forget_now
from tasks.steps.forget_exclude import Wish
from tasks.steps.move_version import export_version, import_version
from tasks.steps.open_version import open_version
from tasks.steps.plan_difference import difference_of
from tasks.steps.publish_version import publish_version
from tasks.steps.roll_back import roll_back
from tasks.steps.vacuum_store import vacuum_store
from tasks.steps.verify_store import verify_store

Paint = Callable[[Path, int | None], Path]
verified_files_hash = verified_files._hash


@pytest.fixture(autouse=True)
def small_galleries_count(monkeypatch: pytest.MonkeyPatch, easy_faces: None) -> None:
    """An approximate index of 96 faces, whose drift says little, in shards that are not written again."""
    monkeypatch.setattr("store.index_choice.FEWEST_FOR_CODES", 32)
    for rule, value in (("_MOST_LOST", 0.2), ("_MOST_MISFIT", 9.0), ("_MOST_UNEVEN", 9.0), ("MOST_CHANGED", 0.9)):
        monkeypatch.setattr(f"store.index_change.{rule}", value)
    monkeypatch.setattr("tasks.steps.held_out_truth._ADDED_SINCE", 0.9)
    monkeypatch.setattr("tasks.steps.write_changes.MOST_BESIDE", 0.5)
    monkeypatch.setattr("tasks.steps.plan_difference.MOST_BESIDE", 0.5)
    monkeypatch.setattr("tasks.steps.plan_build.compact", lambda found, *_, **__: (found.kept, []))


@pytest.fixture
def photos(approximate: tuple[Any, Path], tmp_path: Path) -> Path:
    """The source, which a test may change: the same folder is listed, under the same uris."""
    kept = tmp_path / "kept"
    shutil.copytree(approximate[1], kept)
    yield approximate[1]
    shutil.rmtree(approximate[1])
    shutil.copytree(kept, approximate[1])


@pytest.fixture
def builder(approximate: tuple[Any, Path], tmp_path: Path) -> Any:
    shutil.copytree(approximate[0].store, tmp_path / "store")
    return replace(approximate[0], store=str(tmp_path / "store"))


@pytest.fixture
def two(builder: Any, photos: Path, paint: Paint) -> Any:
    """Version 2 kept as changes: three photos came, two went, one has other bytes, and one is there twice."""
    change(photos, paint)
    assert builder.build(photos) == 2
    return builder


def change(photos: Path, paint: Paint) -> None:
    for n in range(3):
        paint(photos / f"new{n}.png", 500 + n)
    for n in (3, 50):
        (photos / f"{n}.png").unlink()
    paint(photos / "60.png", 700)
    shutil.copy(photos / "70.png", photos / "twin.png")


def manifest_of(builder: Any, number: int | None = None) -> Any:
    return read_version(open_store(builder.store), number).manifest


def tables_of(builder: Any, number: int | None = None) -> tuple[pa.Table, pa.Table]:
    storage = open_store(builder.store)
    version = read_version(storage, number)
    return read_photos_of(storage, version), read_faces_of(storage, version)


def test_only_what_changed_is_written_and_the_rest_is_the_very_files_of_the_base(two: Any) -> None:
    storage, manifest = open_store(two.store), manifest_of(two)
    before = manifest_of(two, 1)
    assert manifest.requires == ["changes"]
    assert manifest.changes.base == 1
    assert (manifest.changes.photos_added, manifest.changes.photos_left) == (5, 3)  # one is told of anew
    assert (manifest.changes.vectors_added, manifest.changes.vectors_left) == (4, 3)
    assert manifest.changes.faces_added == 5  # that of the twins has another uri beside it
    for name in OF_THE_BASE:
        assert manifest.files[name] == before.files[name]
        one, other = (storage.local_path(f"versions/00000{n}/{name}") for n in (1, 2))
        assert os.path.samefile(one, other)
    assert {"index.faiss", "faces.parquet", "photos.parquet", "truth.parquet", "report.html", *OF_CHANGES} == set(
        manifest.files
    )
    assert verify_store(two.store).problems == []


@pytest.mark.parametrize("seed", range(3))
def test_whatever_came_changed_and_went_it_tells_what_a_version_written_whole_tells(
    builder: Any, photos: Path, paint: Paint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng, number = random.Random(seed), iter(range(1_000 * (seed + 1), 100_000))
    beside = 0
    for step in range(5):
        for _ in range(rng.randint(1, 3)):
            there = sorted(photos.glob("*.png"))
            chosen = rng.choice(there)
            what = rng.choice(["add", "add", "change", "remove", "touch", "twin", "spoil", "black"])
            if what == "add":
                paint(photos / f"{next(number)}.png", next(number))
            elif what == "change":
                paint(chosen, next(number))
            elif what == "remove":
                chosen.unlink()
            elif what == "touch":
                os.utime(chosen, ns=(1, rng.randrange(10**18)))
            elif what == "twin":
                shutil.copy(chosen, photos / f"{rng.choice('az')}{next(number)}.png")
            elif what == "spoil":
                chosen.write_bytes(b"no photo any more")
            elif what == "black":
                paint(photos / f"{next(number)}.png", None)
        whole = replace(builder, store=str(shutil.copytree(builder.store, tmp_path / f"whole{step}")))
        with monkeypatch.context() as patch:
            patch.setattr("tasks.steps.write_index.write_changes", lambda *_, **__: None)
            published = whole.build(photos)
        assert builder.build(photos) == published
        one, other = manifest_of(builder), manifest_of(whole)
        assert other.changes is None
        beside += one.changes is not None
        for name in ("counts", "photos", "faces", "content_sha256", "shards"):
            assert getattr(one, name) == getattr(other, name), name
        for mine, theirs in zip(tables_of(builder), tables_of(whole), strict=True):
            assert mine.equals(theirs)
        mine, theirs = (open_version(open_store(each.store), None)[0] for each in (builder, whole))
        assert np.array_equal(indexed_ids(mine.index), indexed_ids(theirs.index))
        assert verify_store(builder.store).problems == []
    assert beside >= 4


def test_its_answers_hold_nobody_who_left_and_everybody_who_came(two: Any, photos: Path) -> None:
    opened, refused = open_version(open_store(two.store), None)
    assert refused == ()
    storage = open_store(two.store)
    held = [open_version(storage, number)[0] for number in (1, 2)]
    of_uri = {row["uri"]: identity for one in held for identity, row in one.faces.items()}
    gone = [of_uri[str(photos / f"{n}.png")] for n in (3, 50)]
    came = [of_uri[str(photos / f"new{n}.png")] for n in range(3)]
    queries = np.random.default_rng(0).standard_normal((20, 32)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = search(opened.index, queries, k=97, settings=replace(opened.settings, refine=500))[1]
    assert found.shape == (20, 97)
    assert not np.isin(found, gone).any()
    assert all((found == one).any() for one in came)
    assert (found != NOBODY).all()
    assert opened.faces[of_uri[str(photos / "70.png")]]["uris"] == [str(photos / "70.png"), str(photos / "twin.png")]


def test_the_report_the_diff_the_exports_and_a_move_know_it_whole(two: Any, tmp_path: Path) -> None:
    storage = open_store(two.store)
    text = read_file(storage, read_version(storage), "report.html").decode()
    assert "changes to version 1: 4 faces were added to its index, 3 in it count no more" in text
    assert diff_versions(1, 2, store=two.store)["photos"] == {"added": 4, "removed": 2, "changed": 1}
    assert diff_versions(1, 2, store=two.store)["faces"] == {"added": 4, "removed": 3}
    exported = export_faces(2, tmp_path / "parquet", store=two.store)
    assert exported.faces == manifest_of(two).faces == 97
    export_version(2, tmp_path / "two.lookalike", store=two.store)
    other = str(tmp_path / "other")
    assert import_version(tmp_path / "two.lookalike", store=other) == 1
    assert verify_store(other).problems == []
    moved = open_version(open_store(other), None)[0]
    assert np.array_equal(indexed_ids(moved.index), indexed_ids(open_version(storage, None)[0].index))


def test_the_next_version_has_the_same_base_and_one_with_much_new_is_written_whole(
    two: Any, photos: Path, paint: Paint
) -> None:
    paint(photos / "later.png", 901)
    (photos / "new1.png").unlink()  # who came with the second leaves with the third
    assert two.build(photos) == 3
    third = manifest_of(two)
    assert (third.changes.base, third.changes.vectors_added, third.changes.vectors_left) == (1, 4, 3)
    assert third.faces == 97
    for n in range(60):
        paint(photos / f"many{n}.png", 2_000 + n)
    assert two.build(photos) == 4
    fourth = manifest_of(two)
    assert (fourth.changes, fourth.requires) == (None, [])
    assert set(fourth.files).isdisjoint(OF_CHANGES)
    assert verify_store(two.store).problems == []


def test_a_whole_copy_follows_one_kept_as_changes_with_everybody_in_it(
    two: Any, photos: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.steps.write_changes.MOST_BESIDE", 0.0)
    paint(photos / "later.png", 901)
    (photos / "new1.png").unlink()
    assert two.build(photos) == 3
    third = manifest_of(two)
    assert (third.changes, third.index.change, third.faces) == (None, "updated", 97), third.index.why
    data = read_file(open_store(two.store), read_version(open_store(two.store)), "index.faiss")
    gone = np.setdiff1d(tables_of(two, 1)[1]["face_id"].to_numpy(), tables_of(two)[1]["face_id"].to_numpy())
    assert len(gone) == 3
    assert not any(int(one).to_bytes(8, "little") in data for one in gone)
    assert verify_store(two.store).problems == []


def test_who_left_is_in_no_new_file_once_a_vacuum_has_taken_the_version_that_had_them(
    two: Any, photos: Path, paint: Paint
) -> None:
    paint(photos / "later.png", 901)
    assert two.build(photos) == 3
    assert manifest_of(two).changes is not None
    vacuum_store(two.store, keep=2)
    assert (
        verify_store(two.store).problems == []
    )  # the base's files stay, under the names of those kept as changes to it
    assert open_version(open_store(two.store), None)[0].version.number == 3
    paint(photos / "latest.png", 902)
    assert two.build(photos) == 4
    assert manifest_of(two).changes is None


def test_who_left_and_is_forgotten_afterwards_is_in_no_file_of_any_version(two: Any, photos: Path) -> None:
    storage = open_store(two.store)
    gone = next(row for row in tables_of(two, 1)[1].to_pylist() if row["uri"] == str(photos / "3.png"))
    known = {gone["photo_sha256"].encode(), int(gone["face_id"]).to_bytes(8, "little"), str(photos / "3.png").encode()}
    held = storage.read("versions/000002/index.faiss")
    assert int(gone["face_id"]).to_bytes(8, "little") in held  # it counts no more, and lies there
    forget_now(Wish("photo", str(photos / "3.png")), store=two.store)
    for number in (1, 2):
        manifest = manifest_of(two, number)
        assert (manifest.changes, manifest.requires, manifest.revision) == (None, [], 1)
    for file in Path(two.store).rglob("*"):
        if file.is_file() and "forgotten" not in file.parts:
            data = file.read_bytes()
            assert not any(one in data for one in known), file
    assert verify_store(two.store).problems == []
    assert roll_back(1, store=two.store)


def test_a_base_that_was_written_anew_meanwhile_publishes_nothing(two: Any, photos: Path, paint: Paint) -> None:
    paint(photos / "later.png", 901)
    plan = two.plan(photos)
    draft = two.draft(plan)
    forget_now(Wish("photo", str(photos / "3.png")), store=two.store)
    with pytest.raises(ArtifactError, match="is missing from the store"):  # with the draft itself
        check_version(draft, store=two.store)
    assert manifest_of(two).version == 2
    again = two.plan(photos)
    assert again.difference is None or again.difference.revision == 1
    assert two.build(photos) == 3
    assert manifest_of(two).changes is None or manifest_of(two).changes.base == 2


def test_a_plan_made_before_the_parent_was_written_anew_writes_the_version_whole(
    two: Any, photos: Path, paint: Paint
) -> None:
    paint(photos / "later.png", 901)
    plan = two.plan(photos)
    assert plan.difference.revision == 0
    forget_now(Wish("photo", str(photos / "3.png")), store=two.store)  # plans are kept under runs/, which it erases
    with pytest.raises(ArtifactError, match="is missing from the store"):
        two.draft(plan)
    assert two.build(photos) == 3
    assert verify_store(two.store).problems == []


def test_no_file_of_the_base_is_hashed_again(
    two: Any, photos: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def told(storage: Any, path: str) -> Any:
        measured.append(path.rsplit("/", 1)[-1])
        return real(storage, path)

    real = versions.measure
    monkeypatch.setattr(versions, "measure", told)
    monkeypatch.setattr(verified_files, "_hash", lambda *_: pytest.fail("hashed again"))
    paint(photos / "later.png", 901)
    plan = two.plan(photos)
    draft = two.draft(plan)
    monkeypatch.setattr(verified_files, "_hash", verified_files_hash)  # what is new is hashed when it is opened
    publish_version(check_version(draft, store=two.store).draft, store=two.store, plan=plan)
    assert manifest_of(two).changes.base == 1
    assert set(measured).isdisjoint(OF_THE_BASE)
    assert "report.html" in measured  # what no check has read


@pytest.mark.parametrize("name", OF_CHANGES)
def test_damaged_changes_are_found_refused_and_the_version_before_answers(two: Any, name: str) -> None:
    storage = open_store(two.store)
    data = storage.read(f"versions/000002/{name}")
    storage.write(f"versions/000002/{name}", data[:-1] + bytes([data[-1] ^ 1]))
    problems = verify_store(two.store).problems
    assert [(p.path, p.kind) for p in problems] == [(f"versions/000002/{name}", "hash")]
    if name != "added_photos.parquet":  # which no query opens
        opened, warnings = open_version(storage, None)
        assert opened.version.number == 1
        assert name in warnings[0]


def test_changes_that_do_not_fit_their_base_are_named(two: Any) -> None:
    storage = open_store(two.store)
    table = from_parquet(storage.read("versions/000002/left.parquet"), LEFT, where="x")
    ids = table["id"].to_numpy().copy()
    ids[np.array(table["of"].to_pylist()) == "vectors"] = [1, 2, 3]
    data = to_parquet(table.set_column(1, "id", pa.array(ids)), LEFT)
    storage.write("versions/000002/left.parquet", data)
    path = "versions/000002/manifest.json"
    document = json.loads(storage.read(path))
    document.pop("self_sha256")
    document["files"]["left.parquet"] = {"bytes": len(data), "sha256": __import__("hashlib").sha256(data).hexdigest()}
    storage.write(path, json.dumps(document).encode())
    problems = verify_store(two.store).problems
    assert any("face 1 cannot have left the index: it is not there" in p.sentence for p in problems)
    assert open_version(storage, None)[0].version.number == 1


def test_a_manifest_says_the_same_of_changes_twice_or_is_refused(two: Any) -> None:
    document = json.loads(manifest_of(two).to_json())
    document.pop("self_sha256")
    for broken, sentence in (
        (document | {"requires": []}, "changes: it is there or not, other than requires"),
        (document | {"changes": None}, "changes: it is there or not, other than requires"),
        (document | {"requires": ["changes", "telepathy"]}, r"this reader knows none of \['telepathy'\]"),
        (
            document | {"files": {name: file for name, file in document["files"].items() if name != "left.parquet"}},
            "left.parquet not recorded",
        ),
    ):
        with pytest.raises(ManifestError, match=sentence):
            parse_manifest(json.dumps(broken).encode(), where="x")


def test_rows_that_do_not_fit_are_refused() -> None:
    rows = np.array
    assert photo_rows(4, rows([1]), rows([0, 3]), where="x").tolist() == [4, 0, 2, 5, 3]
    for base, left, added in (
        (4, rows([4]), rows([0])),
        (4, rows([1, 1]), rows([0])),
        (4, rows([1]), rows([5])),
        (4, rows([1]), rows([2, 2])),
    ):
        with pytest.raises(ArtifactError, match="version 7's changes do not fit its photos"):
            photo_rows(base, left, added, where="version 7")
    ids = rows([2, 5, 9])
    assert face_rows(ids, rows([3, 5]), rows([5]), where="x").tolist() == [0, 3, 4, 2]
    with pytest.raises(ArtifactError, match="version 7's changes do not fit its faces"):
        face_rows(ids, rows([3]), rows([4]), where="version 7")
    with pytest.raises(ArtifactError, match="version 7's changes name a face twice"):
        face_rows(ids, rows([5]), rows([2]), where="version 7")


def test_a_plan_tells_what_differs_and_gives_up_where_much_does() -> None:
    def row(uri: str, before: int | None, **other: Any) -> dict[str, Any]:
        told = {"uri": uri, "size": 1, "etag": None, "mtime_ns": 5, "source": "s", "label": None, "metadata": None}
        return told | {"shard": "a", "attempt": 0, "row_before": before} | other

    uris = [f"s/{n:03}" for n in range(40)]
    before = pa.Table.from_pylist([{**row(uri, None), "status": "indexed"} for uri in uris], schema=VERSION_PHOTOS)
    rows = [row(uri, n) for n, uri in enumerate(uris) if n != 7]
    rows[3] |= {"label": "Ada"}
    rows.insert(10, row("s/009b", None, shard="b"))
    found = difference_of(pa.Table.from_pylist(rows, schema=PLAN), before)
    assert found is not None
    assert found.came.select(["uri", "row", "label"]).to_pylist() == [
        {"uri": "s/003", "row": 3, "label": "Ada"},
        {"uri": "s/009b", "row": 10, "label": None},
    ]
    assert found.left.tolist() == [3, 7]
    many = [*rows, *(row(f"t/{n:03}", None) for n in range(40))]
    assert difference_of(pa.Table.from_pylist(many, schema=PLAN), before) is None


def test_on_s3_it_is_kept_so_too_without_the_base_passing_through(
    builder: Any, photos: Path, paint: Paint, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, local = Storage(f"{s3}/store"), Path(builder.store)
    for path in sorted(p for p in local.rglob("*") if p.is_file()):
        store.write(str(path.relative_to(local)), path.read_bytes())
    there = replace(builder, store=store.uri)
    change(photos, paint)
    written: list[str] = []
    for name in ("write", "upload", "adopt"):
        real = getattr(Storage, name)

        def told(self: Storage, path: str, *rest: Any, real: Any = real) -> Any:
            written.append(path.rsplit("/", 1)[-1])
            return real(self, path, *rest)

        monkeypatch.setattr(Storage, name, told)
    assert there.build(photos) == 2
    assert set(written).isdisjoint(OF_THE_BASE)
    assert set(written) >= set(OF_CHANGES)
    assert builder.build(photos) == 2
    assert manifest_of(there).content_sha256 == manifest_of(builder).content_sha256
    for mine, theirs in zip(tables_of(there), tables_of(builder), strict=True):
        assert mine.equals(theirs)
    assert verify_store(there.store).problems == []
    opened, warnings = open_version(open_store(there.store), None)
    assert warnings == ()
    assert np.array_equal(indexed_ids(opened.index), tables_of(builder)[1]["face_id"].to_numpy())


def test_a_publish_that_is_stopped_at_any_step_leaves_the_old_version_whole_or_the_new_one(
    builder: Any, photos: Path, paint: Paint, tmp_path: Path
) -> None:
    change(photos, paint)
    plan = builder.plan(photos)
    draft = check_version(builder.draft(plan), store=builder.store).draft
    ready = shutil.copytree(builder.store, tmp_path / "ready")
    stopped, step = 0, 0
    while True:
        shutil.rmtree(builder.store)
        shutil.copytree(ready, builder.store)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(local_files, "_sync_folder", counting(local_files._sync_folder, step))
            try:
                publish_version(draft, store=builder.store, plan=plan)
            except Stopped:
                stopped += 1
            else:
                break
        number = read_version(open_store(builder.store)).number
        opened, warnings = open_version(open_store(builder.store), None)
        assert (opened.version.number, warnings) == (number, ())
        assert len(opened.faces) == opened.version.manifest.faces
        assert number in {1, 2}
        step += 1
    assert stopped > 15
    assert manifest_of(builder).changes.base == 1
    assert verify_store(builder.store).problems == []


class Stopped(BaseException):
    """As a process is that is killed: nobody answers it."""


def counting(real: Callable[[Path], None], last: int) -> Callable[[Path], None]:
    """Stops whoever calls it more often than this."""
    calls = iter(range(last))

    def stops(folder: Path) -> None:
        if next(calls, None) is None:
            raise Stopped
        real(folder)

    return stops
