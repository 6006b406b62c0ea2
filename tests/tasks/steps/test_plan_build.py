import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.detection import DetectionSettings
from models.mtcnn.cascade import CascadeSettings
from store.errors import ArtifactError
from store.layout import open_store
from store.schemas import PLAN, VERSION_PHOTOS, from_parquet
from store.versions import current_number, read_file, read_version
from tasks.steps.contract import Contract
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import BuildPlan, compare_source, discard_plan, plan_build
from tasks.steps.resolve_encoder import resolve_encoder
from tasks.steps.train_encoder import NetworkSettings, new_encoder

pytestmark = pytest.mark.usefixtures("easy_faces")
Paint = Callable[[Path, int | None], Path]
Row = dict[str, Any]


@pytest.fixture
def photos(tmp_path: Path, paint: Paint) -> Path:
    """Twelve pictures in three folders."""
    for n in range(12):
        paint(tmp_path / "photos" / f"p{n % 3}" / f"{n:02}.png", n)
    return tmp_path / "photos"


def planned(builder: Any, plan: BuildPlan) -> dict[str, Row]:
    storage = open_store(builder.store)
    data = storage.read(storage.path_of(plan.table.uri), sha256=plan.table.sha256)
    return {os.path.basename(row["uri"]): row for row in from_parquet(data, PLAN, where="plan").to_pylist()}


def version_photos(builder: Any) -> dict[str, Row]:
    storage = open_store(builder.store)
    data = read_file(storage, read_version(storage), "photos.parquet")
    return {os.path.basename(row["uri"]): row for row in from_parquet(data, VERSION_PHOTOS, where="v").to_pylist()}


def nonzero(plan: BuildPlan) -> dict[str, int]:
    return {name: n for name, n in plan.counts.as_json().items() if n}


def test_everything_is_added_to_an_empty_store(builder: Any, photos: Path) -> None:
    (photos / "notes.md").write_text("")
    plan = builder.plan(photos)
    assert nonzero(plan) == {"added": 12, "ignored": 1}
    assert plan.parent is None
    assert plan.needed
    assert plan.sources == (str(photos),)
    assert sum(ref.rows for ref in plan.requests) == 12
    assert plan.kept == plan.finished == ()
    assert {row["shard"] for row in planned(builder, plan).values()} == {Path(ref.uri).stem for ref in plan.requests}


def test_a_second_build_of_the_same_photos_is_not_needed(builder: Any, photos: Path) -> None:
    builder.build(photos)
    plan = builder.plan(photos)
    assert nonzero(plan) == {"unchanged": 12}
    assert not plan.needed
    assert plan.requests == plan.finished == ()
    assert plan.embedded == {Path(ref.uri).stem for ref in plan.kept}
    assert sum(ref.rows for ref in plan.kept) == 12


def test_of_photos_that_stay_in_their_shard_the_plan_names_the_row_before(
    builder: Any, photos: Path, paint: Paint, tmp_path: Path
) -> None:
    paint(tmp_path / "others" / "other.png", 40)
    builder.build(photos)
    builder.build(tmp_path / "others")
    before = list(version_photos(builder))
    paint(photos / "p1" / "new.png", 31)
    rows = {name: row["row_before"] for name, row in planned(builder, builder.plan(photos)).items()}
    named = {name: before[row] for name, row in rows.items() if row is not None}
    assert all(name == there for name, there in named.items())
    assert set(rows) - set(named) == {"new.png"}


def test_what_came_changed_went_and_was_only_touched_is_told_apart(builder: Any, photos: Path, paint: Paint) -> None:
    builder.build(photos)
    before = version_photos(builder)
    paint(photos / "p0" / "new.png", 100)
    paint(photos / "p0" / "00.png", 101)
    (photos / "p1" / "01.png").unlink()
    os.utime(photos / "p2" / "02.png", ns=(1, 1))
    plan = builder.plan(photos)
    assert nonzero(plan) == {"added": 1, "changed": 1, "removed": 1, "unchanged": 10}
    rows = planned(builder, plan)
    assert sorted(rows) == sorted({*before, "new.png"} - {"01.png"})
    assert rows["02.png"]["mtime_ns"] == 1
    moved = {name for name, row in rows.items() if name not in before or row["shard"] != before[name]["shard"]}
    thinned = {before[name]["shard"] for name in ("00.png", "01.png")}
    assert moved == {"new.png", "00.png"} | {n for n in rows if n in before and before[n]["shard"] in thinned}
    assert sum(ref.rows for ref in plan.requests) == 2
    assert sum(ref.rows for ref in plan.compactions) == len(moved) - 2


def test_a_photo_that_was_only_touched_keeps_its_shard_and_nothing_is_published(builder: Any, photos: Path) -> None:
    builder.build(photos)
    before = version_photos(builder)
    os.utime(photos / "p2" / "02.png", ns=(1, 1))
    plan = builder.plan(photos)
    rows = planned(builder, plan)
    assert nonzero(plan) == {"unchanged": 12}
    assert not plan.needed
    assert {name: row["shard"] for name, row in rows.items()} == {n: row["shard"] for n, row in before.items()}


def test_bytes_that_changed_while_size_and_time_did_not_are_not_looked_for(builder: Any, photos: Path) -> None:
    builder.build(photos)
    target = photos / "p0" / "00.png"
    stat = target.stat()
    target.write_bytes(b"x" * stat.st_size)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not builder.plan(photos).needed
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert nonzero(builder.plan(photos)) == {"changed": 1, "unchanged": 11}


def test_a_photo_that_became_a_folder_is_removed_and_one_with_other_bytes_is_changed(
    builder: Any, photos: Path
) -> None:
    builder.build(photos)
    target = photos / "p0" / "00.png"
    size = target.stat().st_size
    target.unlink()
    os.mkdir(target)
    assert nonzero(builder.plan(photos)) == {"removed": 1, "unchanged": 11}
    os.rmdir(target)
    target.write_bytes(b"y" * size)
    assert nonzero(builder.plan(photos)) == {"changed": 1, "unchanged": 11}


def test_failed_photos_are_tried_again_under_a_new_shard_name(builder: Any, photos: Path, tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(f"{photos}/p0/00.png\n{photos}/p0/gone.png\n")
    builder.build(listing)
    assert {n: r["status"] for n, r in version_photos(builder).items()} == {"00.png": "indexed", "gone.png": "failed"}
    plan = builder.plan(listing)
    assert nonzero(plan) == {"failed": 1, "unchanged": 1}
    assert plan.needed
    assert [ref.rows for ref in plan.requests] == [1]
    assert planned(builder, plan)["gone.png"]["attempt"] == 1
    assert builder.build(listing) is None
    assert current_number(open_store(builder.store)) == 1
    assert planned(builder, builder.plan(listing))["gone.png"]["attempt"] == 2
    shutil.copy(photos / "p0" / "03.png", photos / "p0" / "gone.png")
    assert builder.build(listing) == 2
    assert version_photos(builder)["gone.png"]["status"] == "indexed"


def test_removed_covers_only_photos_under_the_given_source(builder: Any, photos: Path) -> None:
    builder.build(photos / "p0")
    builder.build(photos / "p1")
    assert current_number(open_store(builder.store)) == 2
    (photos / "p0" / "00.png").unlink()
    (photos / "p1" / "01.png").unlink()
    plan = builder.plan(photos / "p1")
    assert nonzero(plan) == {"removed": 1, "unchanged": 3}
    assert plan.sources == (f"{photos}/p0", f"{photos}/p1")
    builder.build(photos / "p1")
    assert sorted(version_photos(builder)) == ["00.png", "03.png", "04.png", "06.png", "07.png", "09.png", "10.png"]


def test_a_source_whose_name_begins_like_another_s_is_another(builder: Any, photos: Path, paint: Paint) -> None:
    paint(photos / "p0x" / "other.png", 50)
    builder.build(photos / "p0x")
    assert nonzero(builder.plan(photos / "p0")) == {"added": 4}


def test_a_list_s_photos_belong_to_the_list(builder: Any, photos: Path, tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(f"{photos}/p0/00.png\n{photos}/p1/01.png\n")
    builder.build(listing)
    listing.write_text(f"{photos}/p1/01.png\n")
    assert nonzero(builder.plan(listing)) == {"removed": 1, "unchanged": 1}


def test_labels_are_taken_when_asked_and_kept_for_later_builds_of_that_source(
    builder: Any, photos: Path, paint: Paint
) -> None:
    paint(photos / "top.png", 60)
    builder.build(photos)
    assert {r["label"] for r in version_photos(builder).values()} == {None}
    plan = builder.plan(photos, labels="folder")
    assert nonzero(plan) == {"unchanged": 13}
    assert plan.needed
    assert plan.requests == ()
    builder.build(photos, labels="folder")
    labels = {n: r["label"] for n, r in version_photos(builder).items()}
    assert labels["04.png"] == "p1"
    assert labels["top.png"] is None
    paint(photos / "p2" / "new.png", 61)
    later = builder.plan(photos)
    assert planned(builder, later)["new.png"]["label"] == "p2"
    assert not builder.plan(photos, labels="folder").counts.changed


def test_another_contract_plans_every_photo_again_of_other_sources_too(builder: Any, photos: Path) -> None:
    builder.build(photos / "p0")
    builder.build(photos / "p1")
    other = replace(builder, contract=Contract(detection=DetectionSettings(cascade=CascadeSettings(min_face_px=30))))
    plan = other.plan(photos / "p1")
    assert nonzero(plan) == {"unchanged": 4}
    assert plan.needed
    assert plan.kept == ()
    assert sum(ref.rows for ref in plan.requests) == 8
    other.build(photos / "p1")
    assert {r["status"] for r in version_photos(builder).values()} == {"indexed"}
    assert len(version_photos(builder)) == 8


def test_another_encoder_needs_a_build_but_no_detection(builder: Any, photos: Path) -> None:
    builder.build(photos)
    identity = new_encoder(builder.store, settings=NetworkSettings(width=0.25, dimension=16, seed=1))
    other = replace(builder, encoder=resolve_encoder(identity, store=builder.store))
    plan = other.plan(photos)
    assert plan.needed
    assert plan.requests == plan.finished == ()
    assert plan.embedded == frozenset()
    other.build(photos)
    assert read_version(open_store(builder.store)).manifest.encoder.dimension == 16
    assert not plan_build(
        list_photos(str(photos), store=builder.store), store=builder.store, contract=builder.contract, encoder=None
    ).needed


def test_shards_that_a_killed_build_finished_are_not_asked_for_again(builder: Any, photos: Path) -> None:
    from tasks.steps.find_faces import find_faces

    builder = replace(builder, shard_photos=2)
    plan = builder.plan(photos)
    find_faces(plan.requests[0], store=builder.store, contract=builder.contract)
    again = builder.plan(photos)
    assert again.finished == plan.requests[:1]
    assert again.requests == plan.requests[1:]


def test_a_plan_that_another_build_discards_is_not_this_one_s(builder: Any, photos: Path) -> None:
    first, second = builder.plan(photos), builder.plan(photos)
    discard_plan(first, store=builder.store)
    assert len(planned(builder, second)) == 12
    storage = open_store(builder.store)
    assert storage.read(storage.path_of(second.listing.uri), sha256=second.listing.sha256)
    with pytest.raises(ArtifactError, match="is missing from the store"):
        planned(builder, first)


def test_comparing_counts_and_leaves_nothing_behind(builder: Any, photos: Path) -> None:
    counts = compare_source(str(photos), store=builder.store, contract=builder.contract)
    assert counts.added == 12
    assert counts.differs
    files = [p for p in (Path(builder.store) / "runs").rglob("*") if p.is_file()]
    assert files == []
    assert current_number(open_store(builder.store)) is None
