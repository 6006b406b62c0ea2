import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import ArtifactError, LookalikeError
from store.index_file import indexed_ids, load_index, search
from store.layout import embeddings_path, faces_path, open_store
from store.manifest import Manifest
from store.schemas import FACES, VERSION_FACES, VERSION_PHOTOS, embeddings_schema, from_parquet, to_parquet
from store.shards import read_embeddings, read_faces
from store.storage import Storage
from store.versions import read_file, read_version
from tasks.steps.resolve_encoder import EncoderRef
from tasks.steps.write_index import write_index

pytestmark = pytest.mark.usefixtures("easy_faces")
Paint = Callable[[Path, int | None], Path]
Row = dict[str, Any]


@pytest.fixture
def photos(tmp_path: Path, paint: Paint) -> Path:
    """Nine pictures, two of them with the same bytes, one black, one broken."""
    folder = tmp_path / "photos"
    for n in range(6):
        paint(folder / f"{n}.png", n)
    shutil.copy(folder / "3.png", folder / "0_first_twin.png")
    paint(folder / "black.png", None)
    (folder / "broken.png").write_bytes(b"x")
    return folder


def opened(builder: Any) -> tuple[Manifest, list[Row], list[Row], Any]:
    storage = open_store(builder.store)
    version = read_version(storage)
    faces = from_parquet(read_file(storage, version, "faces.parquet"), VERSION_FACES, where="faces").to_pylist()
    photos = from_parquet(read_file(storage, version, "photos.parquet"), VERSION_PHOTOS, where="photos").to_pylist()
    return version.manifest, faces, photos, load_index(read_file(storage, version, "index.faiss"), where="index")


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {Path(row["uri"]).name: row for row in rows}


def test_a_version_s_tables_index_and_manifest_agree(builder: Any, photos: Path) -> None:
    builder.build(photos)
    manifest, faces, rows, index = opened(builder)
    assert manifest.counts == {
        "indexed": 6, "no_face": 1, "unreadable": 1, "too_large": 0, "too_small": 0, "duplicate": 1, "forgotten": 0,
        "failed": 0,
    }  # fmt: skip
    assert manifest.photos == len(rows) == 9
    assert [r["uri"] for r in rows] == sorted(r["uri"] for r in rows)
    ids = [f["face_id"] for f in faces]
    assert ids == sorted(ids) == indexed_ids(index).tolist()
    assert len(ids) == manifest.faces == 6
    assert sum(s.photos for s in manifest.shards) == 9
    assert manifest.sources == [str(photos)]
    assert manifest.contract.id == builder.contract.id


def test_each_vector_stands_under_its_own_face(builder: Any, photos: Path) -> None:
    builder.build(photos)
    manifest, faces, _, index = opened(builder)
    for shard in manifest.shards:
        stored = read_embeddings(open_store(builder.store), encoder=builder.encoder.id, shard=shard.name, dimension=32)
        for row in stored.to_pylist():
            cosines, found = search(index, np.array([row["embedding"]], np.float32), k=1)
            assert found[0, 0] == row["face_id"]
            assert cosines[0, 0] == pytest.approx(1, abs=1e-5)
    assert len(faces) == 6


def test_photos_with_equal_bytes_are_one_set_of_faces_that_lists_both(builder: Any, photos: Path) -> None:
    builder.build(photos)
    _, faces, rows, _ = opened(builder)
    named = by_name(rows)
    assert named["0_first_twin.png"]["status"] == "indexed"
    assert named["3.png"]["status"] == "duplicate"
    assert named["3.png"]["reason"] == "the same bytes are indexed under another uri"
    face = by_name(faces)["0_first_twin.png"]
    assert face["uris"] == [f"{photos}/0_first_twin.png", f"{photos}/3.png"]
    assert "3.png" not in by_name(faces)


@pytest.mark.parametrize("shard_photos", [1, 64])
def test_when_the_first_twin_goes_the_second_is_indexed(builder: Any, photos: Path, shard_photos: int) -> None:
    builder = replace(builder, shard_photos=shard_photos)
    builder.build(photos)
    before = by_name(opened(builder)[1])["0_first_twin.png"]
    (photos / "0_first_twin.png").unlink()
    builder.build(photos)
    manifest, faces, rows, _ = opened(builder)
    assert by_name(rows)["3.png"]["status"] == "indexed"
    face = by_name(faces)["3.png"]
    assert face["uris"] == [f"{photos}/3.png"]
    assert face["face_id"] == before["face_id"]
    assert (manifest.counts["duplicate"], manifest.faces) == (0, 6)


def test_the_content_is_the_same_for_any_shards_any_order_and_any_time(
    builder: Any, photos: Path, tmp_path: Path
) -> None:
    contents = set()
    for shard_photos in (1, 3, 64):
        store = tmp_path / f"store{shard_photos}"
        shutil.copytree(builder.store, store)
        one = replace(builder, store=str(store), shard_photos=shard_photos)
        one.build(photos)
        contents.add(opened(one)[0].content_sha256)
    step_by_step = tmp_path / "stepwise"
    shutil.copytree(builder.store, step_by_step)
    one = replace(builder, store=str(step_by_step))
    (photos / "5.png").rename(tmp_path / "5.png")
    one.build(photos)
    assert opened(one)[0].content_sha256 not in contents
    (tmp_path / "5.png").rename(photos / "5.png")
    one.build(photos)
    contents.add(opened(one)[0].content_sha256)
    assert len(contents) == 1


def test_a_folder_without_any_face_makes_an_empty_version(builder: Any, tmp_path: Path, paint: Paint) -> None:
    paint(tmp_path / "dark" / "a.png", None)
    assert builder.build(tmp_path / "dark") == 1
    manifest, faces, rows, index = opened(builder)
    assert (manifest.faces, faces, len(rows)) == (0, [], 1)
    assert manifest.metrics == {"recall_at_10": None}
    assert search(index, np.ones((1, 32), np.float32), k=3)[1].shape == (1, 0)


def tampered(builder: Any, plan: Any, what: str) -> None:
    """Drop one face, or one embedding, of the first shard that has any."""
    storage = open_store(builder.store)
    for ref in plan.requests:
        shard = Path(ref.uri).stem
        faces = read_faces(storage, contract=builder.contract.id, shard=shard)
        if faces.num_rows == 0:
            continue
        if what == "face":
            storage.write(faces_path(builder.contract.id, shard), to_parquet(faces.slice(1), FACES))
        else:
            table = read_embeddings(storage, encoder=builder.encoder.id, shard=shard, dimension=32)
            data = to_parquet(table.slice(1), embeddings_schema(32))
            storage.write(embeddings_path(builder.encoder.id, shard), data)
        return


@pytest.mark.parametrize(
    ("what", "error", "sentence"),
    [
        ("face", LookalikeError, "the version lost faces: 6 were found in its photos, 5 are in its shards"),
        ("embedding", ArtifactError, r"face \d+ of shard \w{32} has no embedding by \w{32}"),
    ],
)
def test_a_face_that_a_shard_lost_is_noticed(
    builder: Any, photos: Path, what: str, error: type[Exception], sentence: str
) -> None:
    (photos / "0_first_twin.png").unlink()
    plan = builder.plan(photos)
    builder.draft(plan)
    tampered(builder, plan, what)
    with pytest.raises(error, match=sentence):
        builder.draft(plan)


def has_faces(storage: Storage, encoder: EncoderRef, shard: str) -> bool:
    path = embeddings_path(encoder.id, shard)
    rows = from_parquet(storage.read(path), embeddings_schema(encoder.dimension), where=path, columns=["face_id"])
    return rows.num_rows > 0


def test_a_shard_s_embeddings_that_are_gone_are_named(builder: Any, photos: Path) -> None:
    builder.build(photos)
    storage = open_store(builder.store)
    for number in range(20):  # whose shard it joins hangs on its name: until one with faces stays as it is
        added = photos / f"a{number}.png"
        shutil.copy(photos / "5.png", added)
        plan = builder.plan(photos)
        names = [Path(shard.uri).stem for shard in plan.kept]
        if kept := next((name for name in names if has_faces(storage, builder.encoder, name)), None):
            break
        added.unlink()
    builder.draft(plan)
    storage.remove(embeddings_path(builder.encoder.id, kept))
    with pytest.raises(ArtifactError, match=rf"{kept}\.parquet is missing from the store; build again"):
        write_index(plan, store=builder.store, contract=builder.contract, encoder=builder.encoder)
