import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.errors import SourceError
from store.layout import open_store
from store.shards import read_photos
from tasks.steps.embed_faces import embed_faces
from tasks.steps.find_faces import FoundFaces, find_faces
from tasks.steps.plan_evaluation import EvaluationPlan, discard_evaluation, plan_evaluation, read_plan


def planned(builder: Any, pairs: Path, images: Path, **more: Any) -> EvaluationPlan:
    return plan_evaluation(
        str(pairs),
        images=str(images),
        store=builder.store,
        contract=builder.contract,
        encoder=builder.encoder.id,
        shard_photos=builder.shard_photos,
        **more,
    )


def computed(builder: Any, plan: EvaluationPlan) -> list[FoundFaces]:
    found = [find_faces(ref, store=builder.store, contract=builder.contract) for ref in plan.requests]
    for shard in [*found, *(FoundFaces(shard=ref, computed=False) for ref in plan.kept)]:
        embed_faces(shard, store=builder.store, contract=builder.contract.id, encoder=builder.encoder)
    return found


@pytest.fixture
def folder(tmp_path: Path, paint: Callable[..., Path]) -> Path:
    """Forty pictures, of which the pairs name four, and one pair of a photo that is not there."""
    for n in range(40):
        paint(tmp_path / "images" / f"p{n % 10}" / f"{n}.png", n)
    (tmp_path / "pairs.csv").write_text(
        "first,second,same\np1/1.png,p1/11.png,1\np1/1.png,p2/2.png,0\np3/3.png,p4/none.png,0\n"
    )
    return tmp_path


@pytest.mark.usefixtures("easy_faces")
def test_only_photos_that_a_pair_names_are_asked_for(builder: Any, folder: Path) -> None:
    plan = planned(builder, folder / "pairs.csv", folder / "images")
    pairs, photos = read_plan(plan, storage=open_store(builder.store))
    names = ["p1/1.png", "p1/11.png", "p2/2.png", "p3/3.png"]
    assert [row["uri"] for row in photos] == [f"{folder}/images/{name}" for name in names]
    assert sum(ref.rows for ref in plan.requests) == 4
    assert [row["second_uri"] is None for row in pairs] == [False, False, True]
    assert plan.kept == ()
    computed(builder, plan)
    again = planned(builder, folder / "pairs.csv", folder / "images")
    assert again.requests == ()
    assert again.embedded == {row["shard"] for row in photos}


@pytest.mark.usefixtures("easy_faces")
def test_shards_of_a_build_of_the_folder_serve_although_they_hold_more(builder: Any, folder: Path) -> None:
    builder.build(folder / "images")
    plan = planned(builder, folder / "pairs.csv", folder / "images")
    assert plan.requests == ()
    assert plan.kept
    assert plan.embedded == {row["shard"] for row in read_plan(plan, storage=open_store(builder.store))[1]}


@pytest.mark.usefixtures("easy_faces")
def test_shards_of_a_training_serve_that_published_nothing(builder: Any, folder: Path) -> None:
    for ref in builder.plan(folder / "images").requests:
        find_faces(ref, store=builder.store, contract=builder.contract)
    assert planned(builder, folder / "pairs.csv", folder / "images").requests == ()


@pytest.mark.usefixtures("easy_faces")
def test_a_photo_that_has_changed_since_is_asked_for_again(
    builder: Any, folder: Path, paint: Callable[..., Path]
) -> None:
    builder.build(folder / "images")
    paint(folder / "images" / "p2" / "2.png", 999)
    plan = planned(builder, folder / "pairs.csv", folder / "images")
    assert [ref.rows for ref in plan.requests] == [1]


@pytest.mark.usefixtures("easy_faces")
def test_a_photo_that_could_not_be_read_is_asked_for_in_the_next_evaluation(builder: Any, folder: Path) -> None:
    gone = folder / "images" / "p2" / "2.png"
    plan = planned(builder, folder / "pairs.csv", folder / "images")
    moved = shutil.move(gone, folder / "aside.png")
    computed(builder, plan)
    shutil.move(moved, gone)
    again = planned(builder, folder / "pairs.csv", folder / "images")
    assert [ref.rows for ref in again.requests] == [1]
    computed(builder, again)
    third = planned(builder, folder / "pairs.csv", folder / "images")
    assert third.requests == ()
    storage = open_store(builder.store)
    shard = {row["uri"]: row["shard"] for row in read_plan(third, storage=storage)[1]}[str(gone)]
    (row,) = read_photos(storage, contract=builder.contract.id, shard=shard).to_pylist()
    assert row["status"] == "indexed"


def test_lfw_s_names_are_found_with_any_of_its_suffixes(
    builder: Any, tmp_path: Path, paint: Callable[..., Path]
) -> None:
    for name in (
        "Ann/Ann_0001.png",
        "Ann/Ann_0002.jpeg",
        "Bob/Bob_0001.JPG",
        "Bob/Bob_0002.bmp",
        "Bob/Bob_0003.jpg.png",
    ):
        paint(tmp_path / "images" / name, 1)
    (tmp_path / "pairs.txt").write_text("2\nAnn\t1\t2\nBob\t1\t2\nAnn\t1\tBob\t1\nAnn\t2\tBob\t3\n")
    plan = planned(builder, tmp_path / "pairs.txt", tmp_path / "images")
    pairs, _ = read_plan(plan, storage=open_store(builder.store))
    found = {row[side]: row[f"{side}_uri"] for row in pairs for side in ("first", "second")}
    assert {name: uri and os.path.basename(uri) for name, uri in found.items()} == {
        "Ann/Ann_0001": "Ann_0001.png",
        "Ann/Ann_0002": "Ann_0002.jpeg",
        "Bob/Bob_0001": "Bob_0001.JPG",
        "Bob/Bob_0002": None,  # a .bmp is none of LFW's
        "Bob/Bob_0003": None,
    }


def test_people_left_out_are_in_no_pair(builder: Any, folder: Path) -> None:
    (folder / "out.txt").write_text("p2\nnobody\n")
    pairs = folder / "pairs.csv"
    plan = planned(builder, pairs, folder / "images", exclude_people=str(folder / "out.txt"))
    rows, photos = read_plan(plan, storage=open_store(builder.store))
    assert [row["line"] for row in rows] == [2, 4]
    assert not [row for row in photos if "/p2/" in row["uri"]]
    assert plan.exclusion is not None
    assert (plan.exclusion.names, plan.exclusion.pairs_before, plan.exclusion.pairs_left) == (2, 3, 2)
    (folder / "out.txt").write_text("p1\np3\n")
    with pytest.raises(SourceError, match="no pair of .* is left without the 2 people of"):
        planned(builder, pairs, folder / "images", exclude_people=str(folder / "out.txt"))
    pairs.write_text("first,second,same\np1/1.png,p2/2.png,1\n")
    with pytest.raises(SourceError, match="nobody can be left out of .*folders are not people"):
        planned(builder, pairs, folder / "images", exclude_people=str(folder / "out.txt"))


def test_images_that_are_no_folder_are_refused(builder: Any, folder: Path) -> None:
    (folder / "list.txt").write_text(f"{folder}/images/p1/1.png\n")
    with pytest.raises(SourceError, match=r"the images .*list.txt are no folder: give the folder"):
        planned(builder, folder / "pairs.csv", folder / "list.txt")
    with pytest.raises(SourceError, match=r"the source .*nowhere does not exist"):
        planned(builder, folder / "pairs.csv", folder / "nowhere")


def test_a_plan_leaves_nothing_behind_when_it_is_discarded(builder: Any, folder: Path) -> None:
    plan = planned(builder, folder / "pairs.csv", folder / "images")
    discard_evaluation(plan, store=builder.store)
    assert not [path for path in (Path(builder.store) / "runs").rglob("*") if path.is_file()]
