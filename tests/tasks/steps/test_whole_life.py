"""A store's whole life, on a folder and on S3: built, built again, gone back from, forgotten in, cleaned up, moved and verified."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.layout import open_store
from store.schemas import VERSION_PHOTOS, from_parquet
from store.storage import Storage
from store.versions import current_number, published_numbers, read_file, read_version
from tasks.steps.forget import forget_now
from tasks.steps.forget_exclude import Wish
from tasks.steps.live_filter import search_known
from tasks.steps.move_version import export_version, import_version
from tasks.steps.open_version import open_version
from tasks.steps.roll_back import roll_back
from tasks.steps.vacuum_store import vacuum_store
from tasks.steps.verify_store import verify_store

pytestmark = pytest.mark.usefixtures("easy_faces")
Paint = Callable[[Path, int | None], Path]


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, builder: Any, tmp_path: Path) -> tuple[Any, Callable[[Path, str], str], str]:
    """A builder, a way to put a photo into its source, and the source."""
    if request.param == "folder":

        def put_file(photo: Path, name: str) -> str:
            target = tmp_path / "source" / name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(photo.read_bytes())
            return str(target)

        return builder, put_file, str(tmp_path / "source")
    s3 = request.getfixturevalue("s3")
    source, store = Storage(f"{s3}/source"), Storage(f"{s3}/store")
    local = Path(builder.store)
    for path in sorted(p for p in local.rglob("*") if p.is_file()):
        store.write(str(path.relative_to(local)), path.read_bytes())

    def put_object(photo: Path, name: str) -> str:
        source.write(name, photo.read_bytes())
        return source.uri_of(name)

    return replace(builder, store=store.uri), put_object, source.uri


def names(store: str, number: int | None = None) -> set[str]:
    storage = open_store(store)
    data = read_file(storage, read_version(storage, number), "photos.parquet")
    return {os.path.basename(uri) for uri in from_parquet(data, VERSION_PHOTOS, where="photos")["uri"].to_pylist()}


def shown(store: str) -> set[str]:
    """The photos that a query for whatever face may answer with."""
    storage = open_store(store)
    opened, warnings = open_version(storage, None)
    assert warnings == ()
    query = np.eye(1, 32, dtype=np.float32)
    return {
        os.path.basename(opened.faces[i]["uri"])
        for i, _ in search_known(storage, opened.index, opened.faces, query, k=99)[0]
    }


def test_a_store_is_built_grows_goes_back_forgets_is_cleaned_up_moves_and_verifies(
    place: tuple[Any, Callable[[Path, str], str], str], paint: Paint, tmp_path: Path
) -> None:
    builder, put, source = place
    storage = open_store(builder.store)
    uris = {n: put(paint(tmp_path / "painted" / f"{n}.png", n), f"{n}.png") for n in range(5)}
    assert builder.build(source) == 1
    first = names(builder.store)
    assert first == {f"{n}.png" for n in range(5)}

    put(paint(tmp_path / "painted" / "new.png", 99), "new.png")
    assert builder.build(source) == 2
    assert names(builder.store) == first | {"new.png"}
    assert shown(builder.store) == first | {"new.png"}

    assert roll_back(1, store=builder.store) == 1
    assert shown(builder.store) == first
    assert roll_back(2, store=builder.store) == 2

    told = forget_now(Wish("photo", uris[3]), store=builder.store)
    assert told["verified"]
    assert told["versions_rewritten"] == [1, 2]
    for number in (1, 2):
        assert "3.png" not in names(builder.store, number)
        assert read_version(storage, number).manifest.counts["forgotten"] == 1
    assert shown(builder.store) == {"0.png", "1.png", "2.png", "4.png", "new.png"}
    assert verify_store(builder.store).problems == []

    plan = builder.plan(source)
    assert (plan.counts.forgotten, plan.counts.added, plan.needed) == (1, 0, False)

    put(paint(tmp_path / "painted" / "last.png", 100), "last.png")
    assert builder.build(source) == 3
    assert vacuum_store(builder.store, keep=1).removed == (1, 2)
    assert published_numbers(storage) == [current_number(storage)] == [3]
    assert verify_store(builder.store).problems == []

    export_version(3, tmp_path / "three.tar", store=builder.store)
    moved = str(tmp_path / "moved")
    assert import_version(tmp_path / "three.tar", store=moved) == 1
    assert shown(moved) == shown(builder.store)
    assert verify_store(moved).problems == []
