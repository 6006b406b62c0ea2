import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.alignment import ARCFACE_112, warp_to_template
from models.card import BoxMargin, Template
from models.crop import CropSettings, cut_crop, decode_crop, encode_crop
from models.face_input import make_face_input

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from facenet_pytorch.models.utils.detect_face import extract_face

UInt8Array = npt.NDArray[np.uint8]

LANDMARKS = np.array(ARCFACE_112)
TEMPLATE = Template(template="arcface-112")


def picture(height: int, width: int, *, grain_px: int = 4, seed: int = 0) -> UInt8Array:
    """Nowhere black, and smooth over grain_px pixels."""
    noise = np.random.default_rng(seed).integers(30, 226, (height // grain_px + 1, width // grain_px + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)).clip(1)


def extracted(photo: UInt8Array, box: Any, *, size: int, margin: int) -> UInt8Array:
    tensor = extract_face(Image.fromarray(photo), np.array(box), image_size=size, margin=margin)
    result: UInt8Array = tensor.permute(1, 2, 0).numpy().astype(np.uint8)
    return result


@pytest.mark.parametrize("box", [(40, 40, 104, 136), (100, 8, 260, 200), (0, 0, 300, 220)])
def test_a_box_that_widens_to_whole_pixels_equals_facenet_pytorch_to_the_bit(box: tuple[int, ...]) -> None:
    photo = picture(220, 300)
    found = make_face_input(
        photo, np.array(box, np.float32), LANDMARKS, geometry=BoxMargin(box_margin=0.25), height=160, width=160
    )
    np.testing.assert_array_equal(found, extracted(photo, box, size=160, margin=32))


@pytest.mark.parametrize("seed", range(8))
def test_any_box_equals_facenet_pytorch_but_for_its_cut_to_whole_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    photo = picture(400, 500, grain_px=16, seed=seed)
    first = rng.uniform(-20, 250, 2)
    box = np.concatenate([first, first + rng.uniform(90, 230, 2)]).astype(np.float32)
    found = make_face_input(photo, box, LANDMARKS, geometry=BoxMargin(box_margin=14 / 146), height=160, width=160)
    difference = np.abs(found.astype(int) - extracted(photo, box, size=160, margin=14))
    assert difference.mean() < 6  # a pixel of this picture differs from its neighbour by up to 30
    assert np.median(difference) < 6


def test_the_box_is_clipped_at_the_image_and_not_made_square() -> None:
    rows, columns = np.mgrid[:100, :200]
    photo = np.stack([columns, rows, rows * 0 + 255], axis=2).astype(np.uint8)
    found = make_face_input(
        photo,
        np.array([150, 20, 230, 60], np.float32),
        LANDMARKS,
        geometry=BoxMargin(box_margin=0.5),
        height=80,
        width=70,
    )
    assert found.shape == (80, 70, 3)
    np.testing.assert_allclose(
        found[40, :, 0], 130 + (np.arange(70) + 0.5), atol=1
    )  # 150 - 80 / 4 up to the edge at 200
    np.testing.assert_allclose(found[:, 35, 1], 10 + (np.arange(80) + 0.5) * 60 / 80 - 0.5, atol=1)
    assert found[..., 2].min() == 255


def test_a_template_input_is_the_warped_face() -> None:
    photo = picture(200, 200)
    landmarks = LANDMARKS * 1.2 + 15
    found = make_face_input(photo, np.array([0, 0, 9, 9]), landmarks, geometry=TEMPLATE, height=112, width=112)
    np.testing.assert_array_equal(found, warp_to_template(photo, landmarks, height=112, width=112))


@pytest.mark.parametrize("box", [(120, 130, 220, 260), (150, 100, 640, 700)])
@pytest.mark.parametrize("geometry", [TEMPLATE, BoxMargin(box_margin=0.1), BoxMargin(box_margin=0.6)])
def test_the_stored_crop_gives_the_input_the_photo_gives(
    box: tuple[float, ...], geometry: Template | BoxMargin
) -> None:
    photo = picture(760, 800, grain_px=16)
    corners = np.array(box, np.float32)
    landmarks = corners[:2] + LANDMARKS / 112 * (corners[2:] - corners[:2])
    crop = cut_crop(photo, corners, settings=CropSettings())
    stored = decode_crop(encode_crop(crop, settings=CropSettings()))
    carried = crop.to_crop(corners.reshape(2, 2)).ravel()
    extent = crop.photo_extent(photo_height=760, photo_width=800)
    shape: dict[str, Any] = {"geometry": geometry, "height": 112, "width": 112}
    direct = make_face_input(photo, corners, landmarks, **shape)
    through = make_face_input(stored, carried, crop.to_crop(landmarks), extent=extent, **shape)
    error = np.abs(direct.astype(int) - through).mean()
    assert error < 4
    shifted = make_face_input(stored, carried + 3, crop.to_crop(landmarks) + 3, extent=extent, **shape)
    assert np.abs(direct.astype(int) - shifted).mean() > 3 * error


def test_at_the_photos_edge_the_crop_gives_the_same_input_only_with_the_photos_extent() -> None:
    photo = picture(300, 300, grain_px=8)
    corners = np.array([210, 20, 310, 150], np.float32)
    geometry = BoxMargin(box_margin=0.5)
    crop = cut_crop(photo, corners, settings=CropSettings())
    carried = crop.to_crop(corners.reshape(2, 2)).ravel()
    extent = crop.photo_extent(photo_height=300, photo_width=300)
    direct = make_face_input(photo, corners, LANDMARKS, geometry=geometry, height=112, width=112)
    clipped = make_face_input(crop.pixels, carried, LANDMARKS, geometry=geometry, height=112, width=112, extent=extent)
    unclipped = make_face_input(crop.pixels, carried, LANDMARKS, geometry=geometry, height=112, width=112)
    np.testing.assert_array_equal(clipped, direct)
    assert unclipped[:, -5:].max() == 0
    assert clipped[:, -5:].min() > 0


@pytest.mark.parametrize("box", [(500, 500, 600, 600), (-90, 10, -1, 40), (10, 10, 10, 40), (20, 20, 10, 10)])
def test_a_box_that_shows_nothing_of_the_image_gives_black(box: tuple[float, ...]) -> None:
    found = make_face_input(
        picture(100, 100), np.array(box, np.float32), LANDMARKS, geometry=BoxMargin(box_margin=0), height=20, width=30
    )
    assert found.shape == (20, 30, 3)
    assert found.max() == 0


def test_a_sliver_at_the_images_edge_is_enlarged() -> None:
    photo = np.full((100, 100, 3), 90, np.uint8)
    found = make_face_input(
        photo, np.array([99.999, 5, 140, 40]), LANDMARKS, geometry=BoxMargin(box_margin=0), height=20, width=30
    )
    assert (found == 90).all()


def test_a_box_that_is_not_finite_is_shown() -> None:
    with pytest.raises(ValueError, match=r"wanted a box of four finite numbers, got array\(\[nan"):
        make_face_input(
            picture(50, 50),
            np.array([np.nan, 0, 9, 9]),
            LANDMARKS,
            geometry=BoxMargin(box_margin=0),
            height=20,
            width=20,
        )
