"""A shard with every kind of bad photo, in a supervised child."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.hostile_photos import hostile_photos
from store.layout import open_store
from store.shards import read_photos
from tasks.steps.children import children
from tasks.steps.contract import Contract
from tasks.steps.find_faces import find_faces, shard_of
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import plan_build
from tasks.steps.wall import PhotoBudget, run_behind_wall

Row = dict[str, Any]


def rows_after(folder: Path, store: str, *, change: Any = None, **options: Any) -> dict[str, Row]:
    plan = plan_build(list_photos(str(folder), store=store), store=store, contract=Contract(), encoder=None)
    if change is not None:
        change()
    with children(1):
        found = [run_behind_wall(find_faces, r, store=store, contract=Contract(), **options) for r in plan.requests]
    storage = open_store(store)
    tables = [read_photos(storage, contract=Contract().id, shard=shard_of(f.shard)) for f in found]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len(rows) == plan.table.rows
    return {os.path.basename(row["uri"]): row for row in rows}


def test_a_photo_that_takes_too_long_is_the_only_one_lost(drawn_people: Path, tmp_path: Path) -> None:
    """Real decoding: a large photo under a budget that only small ones keep."""
    from PIL import Image

    (tmp_path / "in").mkdir()
    for n, face in enumerate(sorted(drawn_people.rglob("*.jpg"))[:6]):
        shutil.copy(face, tmp_path / "in" / f"{n}.jpg")
    noise = Image.effect_noise((6000, 6000), 80).convert("RGB")
    noise.save(tmp_path / "in" / "3-slow.png", compress_level=1)
    rows = rows_after(tmp_path / "in", str(tmp_path / "s"), budget=PhotoBudget(cpu_seconds=0.15))
    assert rows["3-slow.png"]["status"] == "unreadable"
    assert rows["3-slow.png"]["reason"] == "decoding it took more than 0.15 s of processor time"
    assert rows["3-slow.png"]["photo_sha256"]
    assert all(row["status"] == "indexed" for name, row in rows.items() if name != "3-slow.png")


def test_a_photo_that_takes_too_much_memory_is_refused(drawn_people: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "in").mkdir()
    shutil.copy(sorted(drawn_people.rglob("*.jpg"))[0], tmp_path / "in" / "a.jpg")
    Image.new("RGB", (6000, 6000)).save(tmp_path / "in" / "b.png")
    rows = rows_after(tmp_path / "in", str(tmp_path / "s"), budget=PhotoBudget(memory_bytes=50 * 2**20))
    assert rows["b.png"]["reason"] == "decoding it takes more memory than one photo may take"
    assert rows["a.jpg"]["status"] == "indexed"


def test_photos_that_vanish_change_or_grow_after_they_were_listed_are_rows_to_try_again(
    drawn_people: Path, tmp_path: Path
) -> None:
    faces = sorted(drawn_people.rglob("*.jpg"))
    (tmp_path / "in").mkdir()
    for name, face in zip(("fine", "grows", "shrinks", "vanishes", "pipe"), faces, strict=False):
        shutil.copy(face, tmp_path / "in" / f"{name}.jpg")

    def change() -> None:
        with (tmp_path / "in" / "grows.jpg").open("ab") as file:
            file.write(b"more")
        os.truncate(tmp_path / "in" / "shrinks.jpg", 100)
        (tmp_path / "in" / "vanishes.jpg").unlink()
        (tmp_path / "in" / "pipe.jpg").unlink()
        os.mkfifo(tmp_path / "in" / "pipe.jpg")

    rows = rows_after(tmp_path / "in", str(tmp_path / "s"), change=change)
    assert {name: row["status"] for name, row in rows.items()} == {
        "fine.jpg": "indexed",
        **{f"{name}.jpg": "failed" for name in ("grows", "shrinks", "vanishes", "pipe")},
    }
    assert "the file changed" in rows["grows.jpg"]["reason"]
    assert "100 read" in rows["shrinks.jpg"]["reason"]


@pytest.mark.timeout(300)
def test_a_folder_of_hostile_files_loses_none_and_harms_none(drawn_people: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    written = {}
    for one in hostile_photos(120, seed=4):
        name = one.name.encode()[:255]
        if Path(os.fsdecode(name)).suffix.lower() not in {
            ".jpg",
            ".png",
            ".webp",
            ".gif",
            ".bmp",
            ".tif",
            ".avif",
            ".heic",
        }:
            continue
        (folder / os.fsdecode(name)).write_bytes(one.data)
        written[os.fsdecode(name)] = one
    for n, face in enumerate(sorted(drawn_people.rglob("*.jpg"))[:8]):
        shutil.copy(face, folder / f"fine{n}.jpg")
    rows = rows_after(folder, str(tmp_path / "s"))
    assert set(rows) == {*written, *(f"fine{n}.jpg" for n in range(8))}
    assert all(rows[f"fine{n}.jpg"]["status"] == "indexed" for n in range(8))
    assert all(row["reason"] for row in rows.values() if row["status"] != "indexed")
