import io
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.crop import Crop, decode_crop
from models.detection import DetectionSettings
from models.mtcnn.cascade import CascadeSettings, detect_faces
from models.photo import PhotoLimits, read_photo
from store.errors import ArtifactError
from store.fingerprints import face_id, sha256_hex
from store.layout import open_store
from store.refs import ArtifactRef
from store.shards import read_faces, read_photos
from tasks.steps.contract import Contract
from tasks.steps.find_faces import find_faces, shard_of
from tasks.steps.photo_faces import load_nets

Row = dict[str, Any]


@pytest.fixture(scope="session")
def mixed_folder(drawn_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of every kind that a folder may hold."""
    folder = tmp_path_factory.mktemp("mixed")
    faces = sorted(drawn_people.rglob("*.jpg"))
    shutil.copy(faces[0], folder / "a_face.jpg")
    shutil.copy(faces[0], folder / "b_twin.jpg")
    shutil.copy(faces[4], folder / "c_face.JPG")
    (folder / "cut.jpg").write_bytes(faces[1].read_bytes()[:3000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("This is no picture.")
    Image.new("RGB", (200, 200), (30, 90, 160)).save(folder / "sky.png")
    Image.new("RGB", (200, 8)).save(folder / "small.png")
    shutil.copy(faces[7], folder / "vanishes.jpg")
    return folder


@pytest.fixture(scope="session")
def found(mixed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Row], list[Row]]:
    """The store, and the rows of the folder's one shard."""
    from tasks.steps.list_photos import list_photos
    from tasks.steps.plan_build import plan_build

    store = str(tmp_path_factory.mktemp("found") / "store")
    listed = list_photos(str(mixed_folder), store=store)
    plan = plan_build(listed, store=store, contract=Contract(), encoder=None)
    (mixed_folder / "vanishes.jpg").rename(mixed_folder / ".gone")
    shards = [find_faces(ref, store=store, contract=Contract()) for ref in plan.requests]
    assert all(shard.computed for shard in shards)
    assert not any(find_faces(ref, store=store, contract=Contract()).computed for ref in plan.requests)
    storage = open_store(store)
    photos = [
        r for s in shards for r in read_photos(storage, contract=Contract().id, shard=shard_of(s.shard)).to_pylist()
    ]
    faces = [
        r for s in shards for r in read_faces(storage, contract=Contract().id, shard=shard_of(s.shard)).to_pylist()
    ]
    return store, photos, faces


def test_every_photo_has_a_row_with_its_status_and_reason(found: tuple[str, list[Row], list[Row]]) -> None:
    rows = {Path(row["uri"]).name: row for row in found[1]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "a_face.jpg": "indexed",
        "b_twin.jpg": "indexed",
        "c_face.JPG": "indexed",
        "cut.jpg": "unreadable",
        "empty.jpg": "unreadable",
        "sky.png": "no_face",
        "small.png": "too_small",
        "text.jpg": "unreadable",
        "vanishes.jpg": "failed",
    }
    assert len(found[1]) == sum(Counter(r["status"] for r in found[1]).values()) == 9
    assert rows["vanishes.jpg"]["reason"] == "cannot be read: FileNotFoundError"
    assert rows["sky.png"]["reason"] == "no face was found"
    assert "200 x 8 pixels" in rows["small.png"]["reason"]
    assert "the bytes are no image" in rows["text.jpg"]["reason"]
    assert all((row["reason"] is None) == (row["status"] == "indexed") for row in rows.values())


def test_rows_hold_what_the_bytes_say(found: tuple[str, list[Row], list[Row]], mixed_folder: Path) -> None:
    for row in found[1]:
        if row["status"] == "failed":
            assert row["photo_sha256"] is None
            continue
        data = (mixed_folder / Path(row["uri"]).name).read_bytes()
        assert row["photo_sha256"] == sha256_hex(data)
        assert row["bytes"] == len(data)
        if row["status"] in {"indexed", "no_face"}:
            assert (row["width"], row["height"]) == Image.open(io.BytesIO(data)).size
            assert row["exif_orientation"] == 1


def test_equal_bytes_give_one_set_of_faces_and_equal_rows(found: tuple[str, list[Row], list[Row]]) -> None:
    _, photos, faces = found
    first, twin = (next(r for r in photos if r["uri"].endswith(n)) for n in ("a_face.jpg", "b_twin.jpg"))
    differing = {name for name in first if first[name] != twin[name]}
    assert differing <= {"uri", "mtime_ns"}
    of_twins = [f for f in faces if f["photo_sha256"] == first["photo_sha256"]]
    assert len(of_twins) == first["num_faces"] >= 1
    indexed = {r["photo_sha256"]: r["num_faces"] for r in photos if r["status"] == "indexed"}
    assert len(faces) == sum(indexed.values())


def test_faces_are_those_of_the_detector_and_their_crops_map_back(
    found: tuple[str, list[Row], list[Row]], mixed_folder: Path
) -> None:
    _, _, faces = found
    for row in faces:
        photo = read_photo((mixed_folder / Path(row["uri"]).name).read_bytes(), limits=PhotoLimits())
        detected = detect_faces(photo.pixels, nets=load_nets("cpu"), settings=CascadeSettings())
        same = [d for d in detected if np.allclose(d.box, row["box"])]
        assert len(same) == 1
        np.testing.assert_allclose(same[0].landmarks.reshape(-1), row["landmarks"])
        assert row["face_id"] == face_id(row["photo_sha256"], row["box"])
        pixels = decode_crop(row["crop"])
        crop = Crop(pixels, origin=np.array(row["crop_origin"]), scale=row["crop_scale"])
        x1, y1, x2, y2 = np.round(crop.to_crop(np.array(row["box"]).reshape(2, 2))).astype(int).reshape(4)
        u1, v1 = np.round(crop.to_photo(np.array([[x1, y1]]))).astype(int)[0]
        assert crop.scale == 1  # a face of a small photo is copied
        inside = photo.pixels[v1 : v1 + y2 - y1, u1 : u1 + x2 - x1].astype(float)
        assert inside.size
        assert np.abs(pixels[y1 : y1 + inside.shape[0], x1 : x1 + inside.shape[1]] - inside).mean() < 3  # JPEG
        eyes = crop.to_crop(np.array(row["landmarks"]).reshape(5, 2))
        assert ((eyes >= 0) & (eyes <= pixels.shape[0])).all()


def test_a_request_that_changed_is_refused(found: tuple[str, list[Row], list[Row]]) -> None:
    store = found[0]
    storage = open_store(store)
    storage.write("runs/requests/abc.parquet", b"other bytes")
    ref = ArtifactRef(uri=storage.uri_of("runs/requests/abc.parquet"), sha256="0" * 64, rows=1)
    with pytest.raises(ArtifactError, match=r"requests/abc.parquet has changed"):
        find_faces(ref, store=store, contract=Contract())


def test_a_photo_larger_than_the_limit_is_too_large_and_never_read_whole(
    builder: Any, drawn_people: Path, tmp_path: Path
) -> None:
    from dataclasses import replace

    (tmp_path / "in").mkdir()
    shutil.copy(sorted(drawn_people.rglob("*.jpg"))[0], tmp_path / "in" / "a.jpg")
    small = replace(builder, contract=Contract(limits=PhotoLimits(max_bytes=1000)))
    plan = small.plan(tmp_path / "in")
    committed = find_faces(plan.requests[0], store=small.store, contract=small.contract)
    row = read_photos(open_store(small.store), contract=small.contract.id, shard=shard_of(committed.shard)).to_pylist()[
        0
    ]
    assert (row["status"], row["photo_sha256"]) == ("too_large", None)
    assert row["bytes"] == (tmp_path / "in" / "a.jpg").stat().st_size
    assert "the limit is 1000" in row["reason"]


def test_every_setting_of_a_contract_is_in_its_id() -> None:
    from models.crop import CropSettings

    contracts = [
        Contract(),
        Contract(detection=DetectionSettings(cascade=CascadeSettings(thresholds=(0.6, 0.7, 0.8)))),
        Contract(detection=DetectionSettings(max_side_px=1000)),
        Contract(detection=DetectionSettings(rotations=())),
        Contract(crop=CropSettings(jpeg_quality=90)),
        Contract(limits=PhotoLimits(min_side_px=21)),
    ]
    assert len({c.id for c in contracts}) == len(contracts)
    assert Contract().id == Contract().id
    assert len(Contract().id) == 32
