"""Labels and metadata of a list on their way into a version."""

import json
from pathlib import Path
from typing import Any

from store.layout import open_store
from store.schemas import VERSION_PHOTOS, from_parquet
from store.versions import read_file, read_version

Row = dict[str, Any]


def photos_of(store: str) -> dict[str, Row]:
    storage = open_store(store)
    data = read_file(storage, read_version(storage), "photos.parquet")
    rows = from_parquet(data, VERSION_PHOTOS, where="photos").to_pylist()
    return {Path(row["uri"]).name: row for row in rows}


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["path,label,album", *rows]) + "\n")
    return path


def test_labels_and_metadata_of_a_list_are_kept_and_a_change_of_them_computes_nothing(
    builder: Any, paint: Any, easy_faces: None, tmp_path: Path
) -> None:
    for n, name in enumerate(("a.png", "b.png")):
        paint(tmp_path / "in" / name, n)
    listed = write(tmp_path / "l.csv", "in/a.png,Ann,x", "in/b.png,,y")
    assert builder.build(listed) == 1
    rows = photos_of(builder.store)
    assert (rows["a.png"]["label"], json.loads(rows["a.png"]["metadata"])) == ("Ann", {"album": "x"})
    assert (rows["b.png"]["label"], json.loads(rows["b.png"]["metadata"])) == (None, {"album": "y"})

    plan = builder.plan(listed)
    assert not plan.needed
    write(listed, "in/a.png,Ann,x", "in/b.png,Bob,z")
    plan = builder.plan(listed)
    assert plan.needed
    assert plan.requests == plan.finished == ()
    assert builder.build(listed) == 2
    rows = photos_of(builder.store)
    assert (rows["b.png"]["label"], json.loads(rows["b.png"]["metadata"])) == ("Bob", {"album": "z"})


def test_a_folder_listed_afterwards_keeps_what_the_list_said(
    builder: Any, paint: Any, easy_faces: None, tmp_path: Path
) -> None:
    paint(tmp_path / "in" / "a.png", 1)
    assert builder.build(write(tmp_path / "l.csv", "in/a.png,Ann,x")) == 1
    paint(tmp_path / "in" / "c.png", 2)
    assert builder.build(tmp_path / "in") == 2
    rows = photos_of(builder.store)
    assert (rows["a.png"]["label"], json.loads(rows["a.png"]["metadata"])) == ("Ann", {"album": "x"})
    assert (rows["c.png"]["label"], rows["c.png"]["metadata"]) == (None, None)


def test_a_row_named_twice_counts_once_by_its_last_mention(
    builder: Any, paint: Any, easy_faces: None, tmp_path: Path
) -> None:
    paint(tmp_path / "in" / "a.png", 1)
    assert builder.build(write(tmp_path / "l.csv", "in/a.png,Ann,x", "in/a.png,Eve,y")) == 1
    assert photos_of(builder.store)["a.png"]["label"] == "Eve"
