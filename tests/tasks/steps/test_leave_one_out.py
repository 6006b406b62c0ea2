from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import LookalikeError
from store.layout import open_store
from store.schemas import VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.shards import read_embeddings
from store.versions import read_file, read_version
from tasks.steps.leave_one_out import leave_one_out


def by_double_loop(store: str, people: set[str] | None = None) -> tuple[float, int, int]:
    """Precision@1, queries and gallery, photo by photo, from what the store holds."""
    storage = open_store(store)
    version = read_version(storage)
    faces = from_parquet(read_file(storage, version, "faces.parquet"), VERSION_FACES, where="x").to_pylist()
    photos = from_parquet(read_file(storage, version, "photos.parquet"), VERSION_PHOTOS, where="x").to_pylist()
    vectors = {}
    for shard in version.manifest.shards:
        table = read_embeddings(storage, encoder=version.manifest.encoder.id, shard=shard.name, dimension=32)
        vectors |= {row["face_id"]: np.array(row["embedding"], np.float64) for row in table.to_pylist()}
    known: list[tuple[str, Any]] = []
    for photo in photos:
        person = photo["label"] or Path(photo["uri"]).parent.name
        own = [f for f in faces if f["photo_sha256"] == photo["photo_sha256"]]
        if photo["status"] != "indexed" or (people is not None and person not in people):
            continue
        middle = np.array([photo["width"], photo["height"]]) / 2
        away = [np.hypot(*((np.array(f["box"][:2]) + f["box"][2:]) / 2 - middle)) for f in own]
        known.append((person, vectors[own[int(np.argmin(away))]["face_id"]]))
    hits, queries = 0, 0
    for n, (person, vector) in enumerate(known):
        others = [(float(vector @ w), p) for m, (p, w) in enumerate(known) if m != n]
        if sum(p == person for _, p in others):
            queries += 1
            hits += max(others)[1] == person
    return hits / queries, queries, len(known)


def test_it_equals_a_double_loop(built_store: tuple[Path, Any]) -> None:
    store = str(built_store[0])
    result = leave_one_out(store)
    share, queries, gallery = by_double_loop(store)
    assert result.precision_at_1 == pytest.approx(share)
    assert (result.queries, result.gallery) == (queries, gallery)
    assert queries >= 20


def test_among_some_people_only_it_equals_a_double_loop_too(built_store: tuple[Path, Any], drawn_people: Path) -> None:
    store = str(built_store[0])
    people = {p.name for p in sorted(drawn_people.iterdir())[:3]}
    result = leave_one_out(store, version=1, people=people)
    share, queries, gallery = by_double_loop(store, people)
    assert result.precision_at_1 == pytest.approx(share)
    assert (result.queries, result.gallery) == (queries, gallery)
    assert gallery <= 9


@pytest.mark.usefixtures("easy_faces")
def test_folders_name_people_where_there_is_no_label_and_nobody_twice_is_refused(
    builder: Any, tmp_path: Path, paint: Callable[..., Path]
) -> None:
    for n in range(3):
        paint(tmp_path / "in" / f"p{n}" / "a.png", n)
    builder.build(tmp_path / "in")
    with pytest.raises(LookalikeError, match=r"version 1 of .* has nobody with two photos with a face"):
        leave_one_out(builder.store)
    with pytest.raises(LookalikeError, match="nobody with two photos"):
        leave_one_out(builder.store, people=[])
    paint(tmp_path / "in" / "p0" / "b.png", 9)
    builder.build(tmp_path / "in")
    assert (leave_one_out(builder.store).queries, leave_one_out(builder.store).gallery) == (2, 4)
