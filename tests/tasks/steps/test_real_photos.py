import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from store.layout import open_store
from store.versions import read_version
from tasks.steps.check_version import check_version
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import embed_faces
from tasks.steps.find_faces import find_faces
from tasks.steps.leave_one_out import leave_one_out
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import plan_build
from tasks.steps.publish_version import publish_version
from tasks.steps.query_photo import query_photo
from tasks.steps.resolve_encoder import resolve_encoder
from tasks.steps.write_index import write_index

PEOPLE = 40


@pytest.fixture(scope="module")
def real_store(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A version of forty real people with two to four photos each, embedded by a real encoder, and its photos."""
    folder = tmp_path_factory.mktemp("real")
    several = [p for p in sorted((real_data / "lfw" / "images").iterdir()) if 2 <= len(list(p.glob("*.jpg"))) <= 4]
    for person in several[:PEOPLE]:
        shutil.copytree(person, folder / "photos" / person.name)
    store, contract = str(folder / "store"), Contract()
    encoder = resolve_encoder(str(real_data / "weights" / "mobilefacenet.onnx"), store=store)
    plan = plan_build(
        list_photos(str(folder / "photos"), store=store),
        store=store,
        contract=contract,
        encoder=encoder.id,
        labels="folder",
    )
    for request in plan.requests:
        embed_faces(
            find_faces(request, store=store, contract=contract), store=store, contract=contract.id, encoder=encoder
        )
    draft = write_index(plan, store=store, contract=contract, encoder=encoder)
    publish_version(check_version(draft, store=store).draft, store=store, plan=plan)
    return store, folder / "photos"


def test_the_nearest_other_photo_shows_the_same_person_for_at_least_95_in_100(real_store: tuple[str, Path]) -> None:
    store, photos = real_store
    measured = leave_one_out(store)
    print(f"leave-one-out over {measured.queries} photos: {measured.precision_at_1:.4f}")
    assert measured.queries == len(list(photos.rglob("*.jpg")))
    assert measured.precision_at_1 >= 0.95


def test_a_face_is_found_in_nearly_every_photo_and_each_photo_is_accounted_for(real_store: tuple[str, Path]) -> None:
    store, photos = real_store
    manifest = read_version(open_store(store)).manifest
    assert sum(manifest.counts.values()) == manifest.photos == len(list(photos.rglob("*.jpg")))
    assert manifest.counts["indexed"] >= 0.99 * manifest.photos


def test_a_real_photo_finds_itself_first_and_then_its_person(real_store: tuple[str, Path]) -> None:
    store, photos = real_store
    right = 0
    asked = [sorted(person.glob("*.jpg"))[0] for person in sorted(photos.iterdir())[:10]]
    for photo in asked:
        faces = query_photo(str(photo), store=store, k=2).faces
        assert all(photo.as_posix() == face.matches[0].uri and face.matches[0].cosine >= 0.99 for face in faces)
        right += any(face.matches[1].label == photo.parent.name for face in faces)
    assert right >= 9


def variants(photo: Path, folder: Path) -> dict[str, Path]:
    """One photo in all eight orientations by its EXIF tag, and on its sides without one."""
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    made = {}
    with Image.open(photo) as opened:
        upright = opened.convert("RGB")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = upright.transpose(stored[orientation]) if orientation > 1 else upright
        made[f"orientation {orientation}"] = folder / f"exif{orientation}.png"
        turned.save(made[f"orientation {orientation}"], exif=exif)
    for degrees, way in (
        (90, Image.Transpose.ROTATE_90),
        (180, Image.Transpose.ROTATE_180),
        (270, Image.Transpose.ROTATE_270),
    ):
        made[f"{degrees} degrees"] = folder / f"turned{degrees}.png"
        upright.transpose(way).save(made[f"{degrees} degrees"])
    return made


def test_a_face_in_every_orientation_and_on_every_side_finds_itself(
    real_store: tuple[str, Path], tmp_path: Path
) -> None:
    store, photos = real_store
    photo = sorted(photos.glob("*/*.jpg"))[7]
    (wanted,) = query_photo(str(photo), store=store, k=1).faces
    for name, path in variants(photo, tmp_path).items():
        (face,) = query_photo(str(path), store=store, k=1).faces
        assert face.matches[0].face_id == wanted.matches[0].face_id, name
        assert face.matches[0].cosine >= 0.99, name
        assert (face.rotation == 0) == name.startswith("orientation")


def test_a_face_on_its_side_is_stored_so_that_every_geometry_sees_it_upright(
    real_data: Path, real_store: tuple[str, Path], tmp_path: Path
) -> None:
    from benchmarks.crops import cards_of, sample_faces
    from models.encoder import load_encoder
    from tasks.steps.embed_faces import face_input_of_row

    _, photos = real_store
    cards, weights = cards_of(real_data / "weights" / "mobilefacenet.onnx", 0.14)
    samples = sample_faces(list(variants(sorted(photos.glob("*/*.jpg"))[12], tmp_path).values()))
    assert len(samples) == 11
    for card in cards:
        inputs = [face_input_of_row(s.row, card, photo_size=s.pixels_HWC.shape[1::-1]) for s in samples.values()]
        vectors = load_encoder(card, weights).embed(np.stack(inputs))
        assert (vectors @ vectors[0]).min() >= 0.99
    assert {s.row["rotation"] for s in samples.values()} == {0, 90, 180, 270}


def test_a_stored_crop_serves_both_geometries_as_the_photo_itself_does(real_data: Path) -> None:
    from benchmarks.crops import cards_of, compare, read_pairs, sample_faces

    pairs = read_pairs(real_data / "lfw")[::40]
    samples = sample_faces(sorted({path for a, b, _ in pairs for path in (a, b)}))
    assert len(samples) >= 120
    cards, weights = cards_of(real_data / "weights" / "mobilefacenet.onnx", 0.14)
    for card in cards:
        compared = compare(samples, pairs, card=card, weights=weights)
        assert compared["cosine_min"] >= 0.99
        assert compared["points_apart"] <= 100 / compared["pairs"] + 0.01  # one pair of these few
