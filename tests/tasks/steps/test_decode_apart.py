import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from models.photo import PhotoLimits, PhotoRefused, read_photo
from tasks.steps.decode_apart import DecodingApart
from tasks.steps.wall import PhotoBudget, PhotoKilledError

LIMITS = PhotoLimits()


@pytest.fixture(scope="module")
def apart() -> Iterator[DecodingApart]:
    with DecodingApart() as decoding:
        yield decoding


def photo(size: tuple[int, int], kind: str) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(sink, kind)
    return sink.getvalue()


@pytest.mark.parametrize(("size", "kind"), [((640, 480), "JPEG"), ((400, 300), "PNG"), ((333, 77), "WEBP")])
def test_a_photo_decoded_apart_has_the_pixels_that_it_has_here(
    apart: DecodingApart, size: tuple[int, int], kind: str
) -> None:
    data = photo(size, kind)
    got = apart.read(data, limits=LIMITS, max_side_px=320, whole=True)
    wanted, whole = read_photo(data, limits=LIMITS, max_side_px=320), read_photo(data, limits=LIMITS)
    np.testing.assert_array_equal(got.pixels, wanted.pixels)
    assert got.full is not None
    np.testing.assert_array_equal(got.full, whole.pixels)
    assert (got.full_width, got.full_height, got.exif_orientation) == (*size, 1)
    assert not got.pixels.flags.writeable


def test_what_is_no_photo_is_refused_as_it_is_here(apart: DecodingApart) -> None:
    with pytest.raises(PhotoRefused, match="the bytes are no image"):
        apart.read(b"no picture", limits=LIMITS, max_side_px=320)
    with pytest.raises(PhotoRefused, match="the limit is 100"):
        apart.read(photo((64, 64), "PNG"), limits=PhotoLimits(max_pixels=100), max_side_px=320)


def test_a_photo_that_takes_too_long_costs_itself_and_the_next_one_comes() -> None:
    data, sentence = photo((4000, 3000), "PNG"), r"decoding it took more than 0.001 s of time"
    with (
        DecodingApart(budget=PhotoBudget(wall_seconds=0.001)) as hurried,
        pytest.raises(PhotoKilledError, match=sentence),
    ):
        hurried.read(data, limits=LIMITS, max_side_px=320)
    with DecodingApart() as patient:
        assert patient.read(photo((64, 64), "PNG"), limits=LIMITS, max_side_px=320).pixels.shape == (64, 64, 3)
