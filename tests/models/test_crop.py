import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from models.crop import Crop, CropSettings, cut_crop, decode_crop, encode_crop

UInt8Array = npt.NDArray[np.uint8]

SETTINGS = CropSettings()


def noise(height: int, width: int, *, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), np.uint8)


def gradient(height: int, width: int) -> UInt8Array:
    """Red grows with x, green with y, blue says photo: the pixels tell where they come from."""
    photo_HWC = np.full((height, width, 3), 255, np.uint8)
    photo_HWC[..., 0] = np.arange(width) * 255 // width
    photo_HWC[..., 1] = (np.arange(height) * 255 // height)[:, None]
    return photo_HWC


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"size_factor": 0.5}, r"size_factor must lie in 1..4, got 0.5"),
        ({"max_face_px": 8}, r"max_face_px must lie in 16..4096, got 8"),
        ({"jpeg_quality": 101}, r"jpeg_quality must lie in 1..100, got 101"),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CropSettings(**wrong)


@pytest.mark.parametrize("seed", range(20))
def test_small_faces_are_copied_pixel_by_pixel_and_black_outside_the_photo(seed: int) -> None:
    rng = np.random.default_rng(seed)
    photo = noise(120, 90, seed=seed)
    first = rng.uniform(-60, 110, 2)
    box = np.concatenate([first, first + rng.uniform(0.5, 70, 2)]).astype(np.float32)
    crop = cut_crop(photo, box, settings=SETTINGS)
    assert crop.scale == 1
    assert (crop.origin == np.round(crop.origin)).all()
    left, top = crop.origin.astype(int)
    for v in range(crop.pixels.shape[0]):
        for u in range(crop.pixels.shape[1]):
            x, y = left + u, top + v
            wanted = photo[y, x] if 0 <= x < 90 and 0 <= y < 120 else (0, 0, 0)
            assert tuple(crop.pixels[v, u]) == tuple(wanted)


@pytest.mark.parametrize("box", [(30, 40, 80, 117), (-20, -30, 40, 20), (100, 100, 260, 400), (0, 0, 2400, 1800)])
def test_a_crop_is_a_square_of_twice_the_longer_side_around_the_box(box: tuple[float, ...]) -> None:
    crop = cut_crop(gradient(1000, 1400), np.array(box, np.float32), settings=SETTINGS)
    longer = max(box[2] - box[0], box[3] - box[1])
    side = crop.pixels.shape[0]
    assert crop.pixels.shape == (side, side, 3)
    assert crop.scale == pytest.approx(min(1, 256 / longer))
    assert side == pytest.approx(2 * longer * crop.scale, abs=1)
    centre = crop.to_crop(np.array([[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]]))
    np.testing.assert_allclose(centre, [[side / 2, side / 2]], atol=0.5)


def test_a_large_face_is_at_most_256_pixels_and_shows_what_the_photo_shows_there() -> None:
    photo = gradient(2000, 3000)
    crop = cut_crop(photo, np.array([700, 300, 1500, 1250], np.float32), settings=SETTINGS)
    assert crop.pixels.shape == (512, 512, 3)
    rows, columns = np.mgrid[3:509:23, 3:509:23]
    places = crop.to_photo(np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1))
    inside = ((places > 4) & (places < (2996, 1996))).all(axis=1)
    seen = crop.pixels[rows.ravel(), columns.ravel()].astype(float)
    wanted = np.stack([places[:, 0] * 255 / 3000, places[:, 1] * 255 / 2000, np.full(len(places), 255)], axis=1) - (
        0.5,
        0.5,
        0,
    )
    np.testing.assert_allclose(seen[inside], wanted[inside], atol=1)
    far_outside = ((places < -4) | (places > (3004, 2004))).any(axis=1)
    assert far_outside.any()
    assert seen[far_outside].max() == 0


def test_shrinking_averages() -> None:
    checks = np.repeat((np.indices((1600, 1600)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    crop = cut_crop(checks, np.array([400, 400, 1200, 1200], np.float32), settings=SETTINGS)
    assert 120 < crop.pixels.min() <= crop.pixels.max() < 135


def test_a_face_larger_than_its_photo_is_cut_without_a_canvas_of_its_size() -> None:
    photo = gradient(3000, 3000)
    crop = cut_crop(photo, np.array([-4e6, -4e6, 5e6, 5e6], np.float32), settings=SETTINGS)
    assert crop.pixels.shape == (512, 512, 3)
    whole = cut_crop(photo, np.array([-100, -100, 3100, 3100], np.float32), settings=SETTINGS)
    x1, y1, x2, y2 = whole.photo_extent(photo_height=3000, photo_width=3000)
    assert (x2 - x1, y2 - y1) == (240, 240)
    assert whole.pixels[y1:y2, x1:x2, 2].min() == 255


@pytest.mark.parametrize("box", [(500, 500, 560, 580), (-900, 10, -800, 90), (10, 1e6, 20, 2e6)])
def test_a_face_outside_the_photo_is_black(box: tuple[float, ...]) -> None:
    crop = cut_crop(noise(100, 100), np.array(box, np.float32), settings=SETTINGS)
    assert crop.pixels.max() == 0
    x1, y1, x2, y2 = crop.photo_extent(photo_height=100, photo_width=100)
    assert x2 <= x1 or y2 <= y1


@pytest.mark.parametrize("box", [(10, 10, 10.2, 10.3), (10, 10, 10, 10), (10, 10, 5, 5)])
def test_a_box_of_less_than_a_pixel_gives_a_crop_of_two(box: tuple[float, ...]) -> None:
    crop = cut_crop(noise(30, 30), np.array(box, np.float32), settings=SETTINGS)
    assert crop.pixels.shape == (2, 2, 3)


@pytest.mark.parametrize("box", [(1, 2, np.nan, 4), (1, 2, 3, np.inf), (1, 2, 3)])
def test_a_box_that_is_none_is_shown(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"cut_crop: wanted a box of four finite numbers, got array\(\[ ?1"):
        cut_crop(noise(30, 30), np.array(box, np.float32), settings=SETTINGS)


@pytest.mark.parametrize("box", [(30, 40, 80, 117), (-20, -30, 40, 20), (200, 100, 1260, 400)])
def test_points_go_into_the_crop_and_back(box: tuple[float, ...]) -> None:
    crop = cut_crop(gradient(500, 700), np.array(box, np.float32), settings=SETTINGS)
    points = np.random.default_rng(1).uniform(-50, 700, (40, 2))
    np.testing.assert_allclose(crop.to_photo(crop.to_crop(points)), points, atol=1e-9)
    np.testing.assert_allclose(crop.to_crop(crop.origin[None]), [[0, 0]], atol=1e-9)
    side = crop.pixels.shape[0]
    np.testing.assert_allclose(crop.to_photo(np.array([[side, side]])), [crop.origin + side / crop.scale], atol=1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_the_photo_fills_its_extent_and_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(50, 900, 2)
    first = rng.uniform(-300, 600, 2)
    box = np.concatenate([first, first + rng.uniform(100, 900, 2)]).astype(np.float32)
    crop = cut_crop(np.full((height, width, 3), 200, np.uint8), box, settings=SETTINGS)
    x1, y1, x2, y2 = crop.photo_extent(photo_height=int(height), photo_width=int(width))
    shown = np.zeros(crop.pixels.shape, np.uint8)
    shown[y1:y2, x1:x2] = 200
    np.testing.assert_array_equal(crop.pixels, shown)
    corners = crop.to_crop(np.array([(0, 0), (width, height)])).clip(0, crop.pixels.shape[0])
    if x2 > x1 and y2 > y1:
        np.testing.assert_allclose([(x1, y1), (x2, y2)], corners, atol=1 + 1e-6)


def test_the_jpeg_holds_the_pixels_in_full_colour_and_nothing_else() -> None:
    soft = np.asarray(Image.fromarray(noise(300, 300)).filter(ImageFilter.GaussianBlur(2)))
    crop = cut_crop(soft, np.array([50, 50, 170, 150], np.float32), settings=SETTINGS)
    data = encode_crop(crop, settings=SETTINGS)
    assert data == encode_crop(crop, settings=SETTINGS)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        assert len(image.getexif()) == 0
        assert not {"exif", "comment", "icc_profile", "xmp"} & set(image.info)
        sampling = [component[1:3] for component in image.layer]  # type: ignore[attr-defined]
    assert sampling == [(1, 1)] * 3
    decoded = decode_crop(data)
    assert decoded.shape == crop.pixels.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - crop.pixels).mean() < 1.5


def test_lower_quality_takes_fewer_bytes() -> None:
    crop = Crop(noise(64, 64), origin=np.zeros(2), scale=1.0)
    assert (
        len(encode_crop(crop, settings=CropSettings(jpeg_quality=30))) < len(encode_crop(crop, settings=SETTINGS)) / 2
    )


@pytest.mark.parametrize("data", [b"", b"no picture at all"])
def test_bytes_that_are_no_jpeg_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=f"a stored crop of {len(data)} bytes is no JPEG"):
        decode_crop(data)
