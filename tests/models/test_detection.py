import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.card import BoxMargin, Template
from models.crop import CropSettings, cut_crop
from models.detection import DetectionSettings, PhotoFaces, find_in_photos
from models.face_input import make_face_input
from models.mtcnn.cascade import detect_faces
from models.mtcnn.nets import CascadeNets, load_cascade_nets
from models.photo import Photo, PhotoLimits, read_photo
from models.portraits import draw_person, draw_portrait
from models.rotation import turn

UInt8Array = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def nets() -> CascadeNets:
    return load_cascade_nets()


def as_photo(pixels: UInt8Array) -> Photo:
    return Photo(pixels, exif_orientation=1, full_width=pixels.shape[1], full_height=pixels.shape[0], full=pixels)


def find(pixels: UInt8Array, nets: CascadeNets, **settings: Any) -> PhotoFaces:
    return find_in_photos([as_photo(pixels)], nets=nets, settings=DetectionSettings(**settings))[0]


def portrait(seed: int = 3) -> UInt8Array:
    return draw_portrait(draw_person(seed), view_seed=1)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_photo_on_its_side_gives_the_face_of_the_upright_one(rotation: int, nets: CascadeNets) -> None:
    upright = portrait()
    (wanted,) = find(upright, nets).faces
    lying = turn(upright, 360 - rotation)
    found = find(lying, nets)
    assert found.rotation == rotation
    assert find(upright, nets).rotation == 0
    best = found.faces[0]
    for geometry in (BoxMargin(box_margin=0.2), Template(template="arcface-112")):
        images = []
        for pixels, face, turned_by in ((upright, wanted, 0), (lying, best, rotation)):
            crop = cut_crop(pixels, face.box, settings=CropSettings())
            images.append(
                make_face_input(
                    crop.pixels,
                    crop.to_crop(face.box.reshape(2, 2)).reshape(4),
                    crop.to_crop(face.landmarks),
                    geometry=geometry,
                    height=112,
                    width=112,
                    extent=crop.photo_extent(photo_height=pixels.shape[0], photo_width=pixels.shape[1]),
                    rotation=turned_by,
                ).astype(int)
            )
        assert np.abs(images[0] - images[1]).mean() < 4
        assert np.abs(images[0] - np.rot90(images[1])).mean() > 15


def test_without_turns_a_photo_on_its_side_has_no_face(nets: CascadeNets) -> None:
    found = find(turn(portrait(), 90), nets, rotations=())
    assert (found.faces, found.rotation) == ([], 0)


def test_a_flat_picture_has_no_face_whatever_the_turn(nets: CascadeNets) -> None:
    assert find(np.full((90, 140, 3), 120, np.uint8), nets) == PhotoFaces([], rotation=0)


def test_many_photos_come_back_in_their_order(nets: CascadeNets) -> None:
    photos = [as_photo(turn(portrait(n), 90 * (n % 4))) for n in range(12)]
    found = find_in_photos(photos, nets=nets, settings=DetectionSettings())
    alone = [find_in_photos([photo], nets=nets, settings=DetectionSettings())[0] for photo in photos]
    assert [one.rotation for one in found] == [one.rotation for one in alone]
    assert [[f.score for f in one.faces] for one in found] == [[f.score for f in one.faces] for one in alone]
    assert len({one.rotation for one in found}) == 4


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_real_photos_on_any_side_are_turned_the_right_way(rotation: int, real_data: Path, nets: CascadeNets) -> None:
    """Although the detector finds something in a third of them as they lie: the twin."""
    paths = random.Random(5).sample(sorted((real_data / "lfw" / "images").glob("*/*.jpg")), 150)
    photos = [as_photo(turn(np.asarray(Image.open(path).convert("RGB")), (360 - rotation) % 360)) for path in paths]
    found = find_in_photos(photos, nets=nets, settings=DetectionSettings())
    assert np.mean([one.rotation == rotation for one in found]) >= 0.98
    if rotation:
        only_without = find_in_photos(photos, nets=nets, settings=DetectionSettings(sure_score=0))
        assert np.mean([one.rotation == rotation for one in only_without]) < 0.85


def test_faces_of_a_photo_searched_small_are_given_at_full_size(nets: CascadeNets, tmp_path: Path) -> None:
    large = Image.fromarray(portrait()).resize((1000, 1000), Image.Resampling.BICUBIC)
    large.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    bounded = DetectionSettings(max_side_px=300)
    photo = read_photo(data, limits=PhotoLimits(), max_side_px=bounded.max_side_px)
    (found,) = find_in_photos([photo], nets=nets, settings=bounded)[0].faces
    (wanted,) = detect_faces(portrait(), nets=nets, settings=bounded.cascade)
    np.testing.assert_allclose(found.box / 4, wanted.box, atol=6)
    np.testing.assert_allclose(found.landmarks / 4, wanted.landmarks, atol=5)


@pytest.mark.parametrize("wrong", [{"max_side_px": 10}, {"rotations": (45,)}])
def test_settings_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DetectionSettings(**wrong)
