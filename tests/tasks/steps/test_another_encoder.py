import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.commands.build import show
from store.layout import open_store
from store.versions import read_version
from tasks.steps.resolve_encoder import resolve_encoder
from tasks.steps.summarise import summarise_build
from tasks.steps.train_encoder import NetworkSettings, new_encoder


@pytest.fixture
def photos(drawn_people: Path, tmp_path: Path) -> Path:
    shutil.copytree(drawn_people, tmp_path / "photos")
    return tmp_path / "photos"


def with_another_encoder(builder: Any, store: str) -> Any:
    encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=16, seed=5))
    return dataclasses.replace(builder, store=store, encoder=resolve_encoder(encoder, store=store))


def embeddings_of(builder: Any) -> dict[str, Any]:
    """The version's embeddings by shard, as stored."""
    import pyarrow.parquet as pq

    manifest = read_version(open_store(builder.store)).manifest
    folder = Path(builder.store) / "embeddings" / manifest.encoder.id
    return {shard.name: pq.read_table(folder / f"{shard.name}.parquet") for shard in manifest.shards}


def test_another_encoder_re_embeds_stored_crops_reads_no_photo_and_says_so(
    builder: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert builder.build(photos) == 1
    from_photos = with_another_encoder(builder, str(tmp_path / "from photos"))
    from_photos.build(photos)
    for photo in photos.rglob("*.jpg"):  # what was in the photos is gone; a listing sees no difference
        before = photo.stat()
        photo.write_bytes(bytes(before.st_size))
        os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))
    for place in (
        "find_faces.read_uri",
        "compare_listing.read_uri",
        "find_faces.load_nets",
        "find_faces.find_in_photos",
    ):
        monkeypatch.setattr(f"tasks.steps.{place}", lambda *_, **__: pytest.fail("a photo was read or searched"))

    other = with_another_encoder(builder, builder.store)
    plan = other.plan(photos)
    assert plan.requests == plan.finished == ()
    assert other.build(photos) == 2
    version = read_version(open_store(builder.store)).manifest
    computed = {"computed": 0, "finished": 0, "kept": len(plan.kept)}
    result = summarise_build(plan, store=builder.store, published=True, seconds={}, computed=computed)
    assert result["embedded"] == {
        "faces": version.faces,
        "from_stored_crops": version.faces,
        "instead_of": builder.encoder.id,
    }
    line = f"re-embedded {version.faces} faces from stored crops: no photo was decoded, no face was searched"
    assert line in show(result).splitlines()
    assert embeddings_of(other) == embeddings_of(from_photos)


def test_a_first_build_says_nothing_of_stored_crops(builder: Any, photos: Path) -> None:
    plan = builder.plan(photos)
    builder.build(photos)
    shards = {"computed": len(plan.requests), "finished": 0, "kept": 0}
    result = summarise_build(plan, store=builder.store, published=True, seconds={}, computed=shards)
    assert result["embedded"]["faces"] == result["faces"] > 0
    assert result["embedded"]["from_stored_crops"] == 0
    assert "stored crops" not in show(result)


def test_new_photos_beside_re_embedded_ones_are_told_apart(builder: Any, photos: Path) -> None:
    builder.build(photos)
    before = read_version(open_store(builder.store)).manifest.faces
    first = sorted(photos.rglob("*.jpg"))[0]
    first.with_name("again.jpg").write_bytes(first.read_bytes() + b"\0")
    other = with_another_encoder(builder, builder.store)
    plan = other.plan(photos)
    assert len(plan.requests) == 1
    other.build(photos)
    shards = {"computed": 1, "finished": 0, "kept": len(plan.kept)}
    result = summarise_build(plan, store=builder.store, published=True, seconds={}, computed=shards)
    assert result["embedded"]["from_stored_crops"] == before
    assert result["embedded"]["faces"] > before
    line = f"re-embedded {before} faces from stored crops; faces were searched in the photos of new shards only"
    assert line in show(result).splitlines()


def test_a_build_that_publishes_nothing_embedded_nothing(builder: Any, photos: Path) -> None:
    builder.build(photos)
    plan = builder.plan(photos)
    result = summarise_build(plan, store=builder.store, published=False, seconds={}, computed={"computed": 0})
    assert result["embedded"] == {"faces": 0, "from_stored_crops": 0, "instead_of": None}
    assert "stored crops" not in show(result)
