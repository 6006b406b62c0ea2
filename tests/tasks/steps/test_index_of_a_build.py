"""A store whose index is approximate, from photos to answers, and through everything that opens a version."""

import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.device_search import _screened
from store.errors import ArtifactError, GateRefusedError, VersionError
from store.index_choice import AskedBudget, IndexBudget
from store.index_file import indexed_ids
from store.layout import open_store
from store.schemas import VERSION_FACES, from_parquet
from store.version_files import OF_THE_BASE, read_faces_of
from store.versions import current_number, read_file, read_manifest, read_version
from tasks.steps.check_version import check_version
from tasks.steps.code_faces import code_faces
from tasks.steps.forget import forget_now
from tasks.steps.forget_exclude import Wish
from tasks.steps.held_out_queries import HeldOutQueries, held_out_queries
from tasks.steps.held_out_truth import read_truth, searched
from tasks.steps.open_version import open_version
from tasks.steps.plan_build import with_budget
from tasks.steps.plan_coding import CodingPlan
from tasks.steps.publish_version import publish_version
from tasks.steps.stored_faces import open_faces
from tasks.steps.verify_store import verify_store
from tasks.steps.write_index import begin_index, write_index

Paint = Callable[[Path, int | None], Path]
PHOTOS = 96
TIGHT = AskedBudget(memory_bytes=9_000)


def build(builder: Any, photos: Path, asked: AskedBudget = TIGHT) -> Any:
    plan = with_budget(builder.plan(photos), asked)
    assert plan.needed
    checked = check_version(builder.draft(plan), store=builder.store)
    publish_version(checked.draft, store=builder.store, plan=plan)
    return read_version(open_store(builder.store)).manifest


@pytest.fixture(autouse=True)
def small_galleries_count(monkeypatch: pytest.MonkeyPatch, easy_faces: None) -> None:
    monkeypatch.setattr("store.index_choice.FEWEST_FOR_CODES", 32)


@pytest.fixture
def made(approximate: tuple[Any, Path]) -> tuple[Any, Path]:
    return approximate


@pytest.fixture
def copy(made: tuple[Any, Path], tmp_path: Path) -> Any:
    """One that a test may change."""
    shutil.copytree(made[0].store, tmp_path / "copy")
    return replace(made[0], store=str(tmp_path / "copy"))


def test_the_manifest_says_what_was_chosen_why_and_what_it_was_measured_to_do(made: tuple[Any, Path]) -> None:
    manifest = read_version(open_store(made[0].store)).manifest
    assert manifest.index.key != "Flat"
    assert manifest.index.budget == {"memory_bytes": 9_000, "latency_ms": 20.0, "recall": 0.95}
    assert "approximate search" in manifest.index.why
    assert manifest.index.measured[0]["points"]
    metrics = manifest.metrics
    assert metrics["recall_at_10"] >= 0.95
    assert {"recall_at_1", "recall_at_100", "p50_ms", "p99_ms", "queries_per_s", "recall_at_10_filtered"} <= set(
        metrics
    )
    assert metrics["queries_from"] == "stored crops changed and embedded again"
    assert manifest.gate == {"recall_at_10": 0.95, "passed": True}


def test_the_report_shows_choice_recall_gate_and_both_pictures(made: tuple[Any, Path]) -> None:
    storage = open_store(made[0].store)
    version = read_version(storage)
    text = read_file(storage, version, "report.html").decode()
    assert html.escape(version.manifest.index.why) in text
    assert "8.79 KiB, 20 ms a query, recall@10 of 0.95" in text
    assert "passed: recall@10 of at least 0.95 was asked for" in text
    assert re.search(
        r"recall</th><td>@1 \d\.\d{3}, @10 \d\.\d{3}, @100 \d\.\d{3}, against a plain matrix product, 48 queries", text
    )
    assert "where 10% of the faces may be found" in text
    assert text.count('aria-label="recall by latency"') == text.count('aria-label="latency"') == 1
    points = sum(len(one["points"]) for one in version.manifest.index.measured)
    assert text.count("<circle") == points  # a dot a setting


def test_it_opens_with_its_settings_and_every_check_of_the_store_holds(made: tuple[Any, Path]) -> None:
    storage = open_store(made[0].store)
    opened, refused = open_version(storage, None)
    assert refused == ()
    assert opened.settings.as_json() == {
        name: value for name, value in opened.version.manifest.index.parameters.items() if name != "kind"
    }
    assert len(opened.faces) == PHOTOS
    assert verify_store(made[0].store).problems == []


def test_a_build_without_a_word_on_the_budget_keeps_it_and_publishes_nothing(made: tuple[Any, Path]) -> None:
    plan = made[0].plan(made[1])
    assert plan.budget == IndexBudget(memory_bytes=9_000)
    assert not with_budget(plan, AskedBudget()).needed
    assert not with_budget(plan, TIGHT).needed
    assert with_budget(plan, AskedBudget(latency_ms=5)).needed


def test_another_budget_makes_another_index_of_the_same_faces(copy: Any, made: tuple[Any, Path]) -> None:
    before = read_version(open_store(copy.store)).manifest
    manifest = build(copy, made[1], AskedBudget(memory_bytes=2**30))
    assert (manifest.version, manifest.index.key, manifest.faces) == (2, "Flat", PHOTOS)
    assert manifest.content_sha256 == before.content_sha256


def test_a_budget_that_nothing_meets_keeps_the_old_version(copy: Any, made: tuple[Any, Path]) -> None:
    with pytest.raises(
        VersionError, match=r"no index of 96 faces of 32 dimensions fits into 50 bytes: the smallest, PCA12"
    ):
        build(copy, made[1], AskedBudget(memory_bytes=50))
    assert current_number(open_store(copy.store)) == 1


def test_the_gate_refuses_an_index_that_is_asked_too_little_and_the_old_version_stays(
    copy: Any, made: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.steps.measure_index._REFINE", (1.0,))
    monkeypatch.setattr("tasks.steps.choose_index._TRIALS", 1)
    monkeypatch.setattr("store.index_search._TUNED_FOR", 1)
    with pytest.raises(
        GateRefusedError, match=r"the gate refused the version: recall@10 is 0\.\d+, wanted at least 0.95"
    ):
        build(copy, made[1], AskedBudget(memory_bytes=8_000))
    assert current_number(open_store(copy.store)) == 1


def test_who_is_forgotten_is_gone_from_an_approximate_index_which_is_trained_anew(
    copy: Any, made: tuple[Any, Path]
) -> None:
    storage = open_store(copy.store)
    before = read_version(storage).manifest
    forget_now(Wish("photo", str(made[1] / "7.png")), store=copy.store)
    manifest = read_version(storage).manifest
    assert manifest.index.key.split(",")[-1] == before.index.key.split(",")[-1]
    assert manifest.index.parameters == before.index.parameters
    opened, _ = open_version(storage, None)
    assert len(opened.faces) == opened.index.ntotal == PHOTOS - 1
    assert verify_store(copy.store).problems == []


def test_queries_that_tune_and_queries_of_the_gate_are_of_different_faces_and_none_is_stored(
    made: tuple[Any, Path],
) -> None:
    storage = open_store(made[0].store)
    version = read_version(storage)
    faces = from_parquet(read_file(storage, version, "faces.parquet"), VERSION_FACES, where="x")
    opened, _ = open_version(storage, None)
    sets = {
        purpose: held_out_queries(
            storage, faces, contract=version.manifest.contract.id, encoder=version.manifest.encoder.id, purpose=purpose
        )
        for purpose in ("tune", "gate")
    }
    again = held_out_queries(
        storage, faces, contract=version.manifest.contract.id, encoder=version.manifest.encoder.id, purpose="gate"
    )
    tuning, gate = sets["tune"].vectors, sets["gate"].vectors
    assert np.array_equal(gate, again.vectors)
    assert len(tuning) == len(gate) == PHOTOS // 2
    assert len({*sets["tune"].faces.tolist(), *sets["gate"].faces.tolist()}) == PHOTOS
    np.testing.assert_allclose(np.linalg.norm(tuning, axis=1), 1, atol=1e-4)
    assert (tuning @ gate.T).max() < 0.99999
    assert opened.index.ntotal == PHOTOS


def test_a_manifest_of_before_budgets_reads_as_one_of_the_default(made: tuple[Any, Path]) -> None:
    manifest = read_version(open_store(made[0].store)).manifest
    document = json.loads(manifest.to_json())
    del document["index"]["budget"], document["index"]["measured"]
    old = type(manifest).model_validate_json(json.dumps(document))
    assert IndexBudget.of(old.index.budget) == IndexBudget()
    assert old.index.measured == []


@pytest.fixture(params=["beside", "whole"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the next version is kept."""
    if request.param == "whole":
        monkeypatch.setattr("tasks.steps.write_changes.MOST_BESIDE", 0)
    else:  # shards of 32 photos, one of which went, are a large part of 96
        monkeypatch.setattr("tasks.steps.plan_build.compact", lambda found, *_, **__: (found.kept, []))
    return str(request.param)


@pytest.fixture
def changed(made: tuple[Any, Path], tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The source of the store with three photos more and two less, while the test runs."""
    monkeypatch.setattr("store.index_change._MOST_LOST", 0.05)  # 48 queries say little
    monkeypatch.setattr("store.index_change._MOST_MISFIT", 2.0)  # as do codes learnt from 96 faces
    photos, before = made[1], set(made[1].iterdir())
    for n in (3, 50):
        (photos / f"{n}.png").rename(tmp_path / f"{n}.png")
    for n in range(3):
        paint(photos / f"new{n}.png", 500 + n)
    yield photos
    for path in set(photos.iterdir()) - before:
        path.unlink()
    for n in (3, 50):
        (tmp_path / f"{n}.png").rename(photos / f"{n}.png")


def test_a_little_change_is_applied_to_the_index_before_and_the_manifest_says_so(
    copy: Any, changed: Path, kept: str
) -> None:
    storage = open_store(copy.store)
    before = read_version(storage).manifest
    manifest = build(copy, changed, AskedBudget())
    record = manifest.index
    assert (manifest.version, record.change, manifest.faces) == (2, "updated", PHOTOS + 1), record.why
    assert record.key == before.index.key
    assert record.trained is not None
    assert (record.trained.faces, record.trained.changed, record.trained.why) == (PHOTOS, 5, before.index.why)
    how = "changes beside" if kept == "beside" else "a copy of"
    assert record.why.startswith(
        f"{before.index.why}; updated: {how} version 1's index, 3 faces added and 2 removed; 5.2% of the 96"
    )
    assert (manifest.requires, manifest.changes is not None) == (
        (["changes"], True) if kept == "beside" else ([], False)
    )
    assert "truth.parquet" in manifest.files
    assert manifest.metrics is not None
    assert manifest.metrics["recall_at_10"] >= 0.95
    assert "updated" in read_file(storage, read_version(storage), "report.html").decode()
    assert verify_store(copy.store).problems == []
    forget_now(Wish("photo", str(changed / "7.png")), store=copy.store)
    assert "truth.parquet" not in read_version(storage).manifest.files  # queries were made of crops
    after = read_version(storage).manifest.index
    assert (after.change, after.why) == ("rebuilt", before.index.why)
    assert after.trained is not None
    assert (after.trained.faces, after.trained.changed) == (PHOTOS, 0)
    assert verify_store(copy.store).problems == []


def test_neighbours_of_unchanged_queries_are_carried_on_and_not_searched_again(
    copy: Any, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("searched anew")

    monkeypatch.setattr("tasks.steps.held_out_truth._ADDED_SINCE", 0.5)
    with monkeypatch.context() as patch:
        for name in ("tasks.steps.update_index.searched", "tasks.steps.check_version.searched"):
            patch.setattr(name, never)
        patch.setattr("tasks.steps.check_version.held_out_queries", never)
        patch.setattr("tasks.steps.write_index.held_out_queries", never)
        manifest = build(copy, changed, AskedBudget())
    assert manifest.index.change == "updated"
    storage = open_store(copy.store)
    version = read_version(storage)
    table = read_faces_of(storage, version)
    faces = open_faces(storage, table, encoder=manifest.encoder.id, dimension=32, recorded=manifest)
    held = read_truth(read_file(storage, version, "truth.parquet"), dimension=32, where="x")
    assert 40 <= len(held["gate"].faces) < PHOTOS // 2 + 1
    anew = searched("gate", HeldOutQueries(held["gate"].faces, held["gate"].near[1.0].queries), faces)
    assert np.array_equal(anew.near[1.0].ids[:, :90], held["gate"].near[1.0].ids[:, :90])


def test_who_was_removed_is_not_answered_by_a_changed_index(copy: Any, changed: Path, kept: str) -> None:
    storage = open_store(copy.store)
    before = faces_of(storage)
    build(copy, changed, AskedBudget())
    after = faces_of(storage)
    index = open_version(storage, None)[0].index
    assert set(indexed_ids(index).tolist()) == set(after)
    gone = set(before) - set(after)
    assert len(gone) == 2
    data = read_file(storage, read_version(storage), "index.faiss")
    assert all((int(one).to_bytes(8, "little") in data) == (kept == "beside") for one in gone)


def test_changes_add_up_until_the_index_is_trained_anew(
    copy: Any, changed: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.index_change.MOST_CHANGED", 0.06)
    assert build(copy, changed, AskedBudget()).index.change == "updated"
    paint(changed / "late.png", 900)
    manifest = build(copy, changed, AskedBudget())
    assert manifest.index.trained is not None
    assert (manifest.index.change, manifest.index.trained.changed) == ("rebuilt", 0)
    assert manifest.index.why.endswith("made anew: 6 faces have come or gone since it was trained on 96, more than 6%")


def test_a_changed_index_that_the_gate_refuses_is_made_anew_at_once(
    copy: Any, changed: Path, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = copy.plan(changed)
    draft = copy.draft(plan)
    storage = open_store(copy.store)
    folder = storage.path_of(draft.uri).rsplit("/", 1)[0]
    path = f"{folder}/draft.json"
    document = json.loads(storage.read(path))
    assert document["index"]["change"] == "updated"
    assert (document["changes"] is None) == (kept == "whole")
    document["index"]["parameters"] |= {"refine": 1, "nprobe": 1}  # asked so, it finds too little
    document.pop("self_sha256")
    storage.write(path, json.dumps(document).encode())
    monkeypatch.setattr("store.index_search._TUNED_FOR", 1)
    monkeypatch.setattr("tasks.steps.measure_index._REFINE", (1.0, 500.0))
    checked = check_version(draft, store=copy.store)
    publish_version(checked.draft, store=copy.store, plan=plan)
    manifest = read_version(storage).manifest
    assert manifest.index.change == "rebuilt"
    assert re.search(r"made anew: recall@10 of the changed one was 0\.\d{3} at the gate$", manifest.index.why)
    assert manifest.gate == {"recall_at_10": 0.95, "passed": True}
    assert (manifest.changes, manifest.requires) == (None, [])
    assert sorted(manifest.files) == sorted({*OF_THE_BASE, "truth.parquet", "report.html"})
    assert verify_store(copy.store).problems == []


def faces_of(storage: Any) -> list[int]:
    ids: list[int] = read_faces_of(storage, read_version(storage), ["face_id"])["face_id"].to_pylist()
    return ids


def test_an_index_of_more_faces_than_are_held_is_coded_block_by_block_to_the_very_version_of_one_pass(
    made: tuple[Any, Path], copy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.steps.choose_index._TRIALS", 1)
    monkeypatch.setattr("tasks.steps.measure_index._REFINE", (1.0, 500.0))
    monkeypatch.setattr("tasks.steps.stored_faces._HELD_BYTES", 1_000)
    monkeypatch.setattr("tasks.steps.stored_faces.BLOCK", 20)
    monkeypatch.setattr("tasks.steps.plan_coding._FACES", 20)
    asked = AskedBudget(
        memory_bytes=8_500, latency_ms=60_000
    )  # another one: the index is made anew, and no latency is too long
    twin = replace(copy, store=str(shutil.copytree(copy.store, tmp_path / "twin")))
    begun = begin_index(
        with_budget(copy.plan(made[1]), asked), store=copy.store, contract=copy.contract, encoder=copy.encoder
    )
    assert isinstance(begun, CodingPlan)
    assert len(begun.requests) > 1
    in_blocks = build(copy, made[1], asked)
    with monkeypatch.context() as patch:
        patch.setattr("tasks.steps.write_index.StoredFaces", type(None))  # nobody is: all of it is one pass
        at_once = build(twin, made[1], asked)
    assert in_blocks.index.change == "rebuilt"
    assert in_blocks.index.key != "Flat"
    for name in ("index.faiss", "truth.parquet", "faces.parquet", "photos.parquet"):
        assert in_blocks.files[name] == at_once.files[name], name
    assert without_times(in_blocks) == without_times(at_once)
    storage = open_store(copy.store)
    assert storage.names("runs/coding") == []
    left = [name for name in storage.names("runs/builds") if name != begun.build]
    assert left == []
    assert verify_store(copy.store).problems == []


@pytest.mark.parametrize("held_bytes", [2**28, 1_000])
def test_a_build_on_another_device_compares_there_and_has_the_very_same_truth(
    held_bytes: int, made: tuple[Any, Path], copy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.steps.measure_index._REFINE", (1.0, 500.0))
    monkeypatch.setattr("tasks.steps.stored_faces._HELD_BYTES", held_bytes)
    monkeypatch.setattr("tasks.steps.stored_faces.BLOCK", 20)
    monkeypatch.setattr("tasks.steps.plan_coding._FACES", 20)
    monkeypatch.setattr("tasks.steps.index_device._WORTH_COMPARING", 0)
    compared = []

    def told(device: str, *arrays: Any) -> Any:
        compared.append(device)
        return _screened(device, *arrays)

    monkeypatch.setattr("models.device_search._screened", told)
    files = {}
    for device in ("cpu", "cpu:0"):  # numpy, and torch where there is no GPU
        own = replace(copy, store=str(shutil.copytree(copy.store, tmp_path / device.replace(":", "-"))))
        plan = with_budget(own.plan(made[1]), AskedBudget(memory_bytes=8_500))
        options = {"store": own.store, "contract": own.contract, "encoder": own.encoder, "device": device}
        checked = check_version(write_index(plan, **options), store=own.store, device=device)
        storage = open_store(own.store)
        files[device] = read_manifest(storage, storage.path_of(checked.draft.uri)).files
    assert files["cpu"]["truth.parquet"] == files["cpu:0"]["truth.parquet"]
    blocks = 1 if held_bytes > 1_000 else 4
    assert len(compared) >= 1 + blocks + 3  # with the sample, with all faces, and at the gate with two filters beside
    assert set(compared) == {"cpu:0"}


def test_a_coded_block_that_is_broken_publishes_nothing_and_the_next_build_codes_it_anew(
    made: tuple[Any, Path], copy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.steps.measure_index._REFINE", (1.0, 500.0))
    monkeypatch.setattr("tasks.steps.stored_faces._HELD_BYTES", 1_000)
    monkeypatch.setattr("tasks.steps.stored_faces.BLOCK", 20)
    monkeypatch.setattr("tasks.steps.plan_coding._FACES", 20)
    asked = AskedBudget(memory_bytes=8_500)
    storage = open_store(copy.store)

    def broken(block: Any, **options: Any) -> Any:
        done = code_faces(block, **options)
        storage.write(storage.path_of(done.codes.uri), b"half a block")
        return done

    with monkeypatch.context() as patch:
        patch.setattr("tasks.steps.write_index.code_faces", broken)
        with pytest.raises(ArtifactError, match=r"of (\d) coded blocks of faces \1 cannot be read back"):
            build(copy, made[1], asked)
    assert current_number(storage) == 1
    assert build(copy, made[1], asked).version == 2
    assert verify_store(copy.store).problems == []


def test_a_changed_copy_of_many_faces_takes_no_workers(
    copy: Any, changed: Path, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.steps.stored_faces._HELD_BYTES", 1_000)
    monkeypatch.setattr("tasks.steps.write_index.plan_coding", None)
    assert build(copy, changed, AskedBudget()).index.change == "updated"


def without_times(manifest: Any) -> dict[str, Any]:
    """What two builds of the same must agree on: all but who they are, when they were, and how long anything took."""
    document = json.loads(manifest.to_json())
    for name in ("build", "created_at", "self_sha256"):
        document.pop(name, None)
    document["files"].pop("report.html")
    document["metrics"].pop("latency_quantiles_ms")
    text = re.sub(r"[\d.e+-]+ ms", "some ms", json.dumps(document, sort_keys=True))
    document = json.loads(re.sub(r'"(p50_ms|p99_ms|queries_per_s\w*)": [\d.e+-]+', '"\\1": 0', text))
    return dict(document)
