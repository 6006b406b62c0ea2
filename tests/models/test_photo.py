import io
import struct
import threading
import warnings
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from models.photo import SUFFIXES, Photo, PhotoLimits, PhotoRefused, full_pixels, read_photo, require_rgb

UInt8Array = npt.NDArray[np.uint8]

LIMITS = PhotoLimits()

# What a camera held in each position stores, so that turning it by its tag gives the upright picture again.
STORED: dict[int, Any] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],
}


def picture(height: int = 40, width: int = 56) -> UInt8Array:
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)))


def saved(image: Image.Image, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def refusal(data: bytes, limits: PhotoLimits = LIMITS) -> PhotoRefused:
    with pytest.raises(PhotoRefused) as caught:
        read_photo(data, limits=limits)
    error = caught.value
    assert str(error) == error.reason
    assert 10 < len(error.reason) <= 200
    assert "\n" not in error.reason
    assert "0x" not in error.reason
    assert "BytesIO" not in error.reason
    return error


def read(image: Image.Image, format_name: str = "PNG", **options: Any) -> Photo:
    return read_photo(saved(image, format_name, **options), limits=LIMITS)


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("JPEG", {"quality": 100, "progressive": True}),
        ("WEBP", {"quality": 100}),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    ],
)
def test_every_supported_format_gives_its_pixels(format_name: str, options: dict[str, Any]) -> None:
    upright = picture()
    photo = read(Image.fromarray(upright), format_name, **options)
    assert (photo.width, photo.height, photo.exif_orientation) == (56, 40, 1)
    assert photo.pixels.dtype == np.uint8
    exact = format_name in {"PNG", "BMP", "TIFF"} or "lossless" in options
    assert np.abs(photo.pixels.astype(int) - upright).mean() <= (0 if exact else 8)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_give_the_same_upright_pixels(orientation: int, format_name: str) -> None:
    rows, columns = np.mgrid[:48, :64]  # smooth, so that lossy formats keep it; no symmetry
    upright = np.stack([columns * 3, rows * 5, np.where((rows < 20) & (columns < 12), 250, 20)], axis=2).astype(
        np.uint8
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless: dict[str, Any] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 98, "subsampling": 0},
        "AVIF": {"quality": 98},
    }
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    photo = read(stored, format_name, exif=exif, **lossless.get(format_name, {}))
    assert photo.exif_orientation == orientation
    assert (photo.width, photo.height) == (64, 48)
    assert np.abs(photo.pixels.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_leaves_the_photo_as_it_is(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = read(Image.fromarray(picture()), "PNG", exif=exif)
    assert photo.exif_orientation == 1
    np.testing.assert_array_equal(photo.pixels, picture())


def test_grey_pixels_become_three_equal_channels() -> None:
    grey = picture()[..., 0]
    np.testing.assert_array_equal(read(Image.fromarray(grey)).pixels, np.repeat(grey[..., None], 3, axis=2))


def test_black_and_white_pixels_become_0_and_255() -> None:
    bits = Image.fromarray(picture()[..., 0] > 128)
    assert bits.mode == "1"
    np.testing.assert_array_equal(read(bits).pixels[..., 1], (picture()[..., 0] > 128) * 255)


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_upper_8_bits(format_name: str) -> None:
    deep = (picture()[..., 0].astype(np.uint16) << 8) + 77
    np.testing.assert_array_equal(read(Image.fromarray(deep), format_name).pixels[..., 2], picture()[..., 0])


def test_16_bit_colour_keeps_its_upper_8_bits() -> None:
    deep = (picture().astype(">u2") << 8) + 5
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    photo = read_photo(
        png(width=56, height=40, bit_depth=16, colour_type=2, pixels=zlib.compress(lines)), limits=LIMITS
    )
    assert np.abs(photo.pixels.astype(int) - picture()).max() <= 1


def test_cmyk_becomes_rgb() -> None:
    cmyk = Image.fromarray(picture()).convert("CMYK")
    photo = read(cmyk, "JPEG", quality=100, subsampling=0)
    assert np.abs(photo.pixels.astype(int) - picture()).mean() < 4


def test_a_palette_gives_its_colours() -> None:
    few = Image.fromarray(picture()).quantize(16)
    np.testing.assert_array_equal(read(few).pixels, np.asarray(few.convert("RGB")))


def test_transparent_pixels_lie_over_white() -> None:
    alpha = np.zeros((40, 56), np.uint8)
    alpha[:, 20:30], alpha[:, 30:] = 128, 255
    photo = read(Image.fromarray(np.dstack([picture(), alpha])))
    assert photo.pixels[:, :20].min() == 255
    np.testing.assert_array_equal(photo.pixels[:, 30:], picture()[:, 30:])
    between = (picture()[:, 20:30].astype(int) * 128 + 255 * 127) / 255
    assert np.abs(photo.pixels[:, 20:30] - between).max() <= 1


def test_a_transparent_palette_entry_and_a_transparent_colour_lie_over_white() -> None:
    indices = np.zeros((40, 56), np.uint8)
    indices[:, 28:] = 1
    palette = Image.fromarray(indices, "L")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    for data in (
        saved(palette, "PNG", transparency=bytes([0, 255])),
        saved(palette, "GIF", transparency=0),
        saved(palette.convert("RGB"), "PNG", transparency=(10, 20, 30)),
    ):
        photo = read_photo(data, limits=LIMITS)
        assert photo.pixels[:, :28].min() == 255
        assert photo.pixels[0, 40].tolist() == [200, 100, 50]


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_frames_the_first_counts(format_name: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("#c81e1e", "#1ec81e", "#1e1ec8")]
    photo = read(frames[0], format_name, save_all=True, append_images=frames[1:])
    assert np.abs(photo.pixels[15, 20].astype(int) - (200, 30, 30)).max() < 12


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_off_anywhere_is_refused(progressive: bool) -> None:
    data = saved(Image.fromarray(picture(200, 260)), "JPEG", quality=90, progressive=progressive)
    for end in range(0, len(data) - 40, len(data) // 60):
        assert refusal(data[:end]).status == "unreadable"


@pytest.mark.parametrize("format_name", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_other_formats_cut_off_in_the_middle_are_refused(format_name: str) -> None:
    data = saved(Image.fromarray(picture(100, 130)), format_name)
    for share in (0.02, 0.3, 0.6):
        assert refusal(data[: int(len(data) * share)]).status == "unreadable"


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"hello, this is a text file\n" * 9, bytes(5000), b"\xff\xd8\xff"])
def test_what_is_no_photo_is_unreadable(data: bytes) -> None:
    error = refusal(data)
    assert error.status == "unreadable"
    assert "no image in one of JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF" in error.reason


@pytest.mark.parametrize("format_name", ["PPM", "ICO", "TGA", "PDF", "EPS"])
def test_formats_that_are_not_listed_are_unreadable(format_name: str) -> None:
    assert refusal(saved(Image.fromarray(picture()), format_name)).status == "unreadable"


def test_floating_point_pixels_are_unreadable() -> None:
    data = saved(Image.fromarray(picture()[..., 0].astype(np.float32)), "TIFF")
    assert refusal(data).reason == "the decoder gave up: ValueError: floating-point pixels have no agreed range"


def test_damaged_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(0)
    limits = PhotoLimits(max_pixels=1_000_000)
    read_count = refused_count = 0
    exif = Image.Exif()
    exif[0x0112] = 6
    for format_name in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"):
        data = np.frombuffer(saved(Image.fromarray(picture()), format_name, exif=exif), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            places = rng.integers(0, min(len(data), 300), rng.integers(1, 12))
            damaged[places] = rng.integers(0, 256, len(places))
            try:
                photo = read_photo(damaged.tobytes(), limits=limits)
                assert photo.pixels.shape == (photo.height, photo.width, 3)
                read_count += 1
            except PhotoRefused:
                refused_count += 1
    assert min(read_count, refused_count) > 20


def test_the_same_bytes_give_the_same_reason() -> None:
    data = saved(Image.fromarray(picture(100, 130)), "PNG")[:2000]
    assert refusal(data).reason == refusal(bytes(bytearray(data))).reason


def png(*, width: int, height: int, bit_depth: int = 8, colour_type: int = 2, pixels: bytes = b"") -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [7_000, 10_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(image: Image.Image) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(Image.Image, "load", decode)
    error = refusal(png(width=side, height=side, pixels=zlib.compress(bytes(10_000))))
    assert error.status == "too_large"
    assert "pixels" in error.reason


def test_limits_are_inclusive_and_named() -> None:
    data = saved(Image.fromarray(picture()), "PNG")
    limits = PhotoLimits(max_bytes=len(data), max_pixels=40 * 56, min_side_px=40)
    assert read_photo(data, limits=limits).pixels.shape == (40, 56, 3)
    tight = refusal(data, PhotoLimits(max_bytes=len(data) - 1))
    assert (tight.status, tight.reason) == (
        "too_large",
        f"the file has {len(data)} bytes, the limit is {len(data) - 1}",
    )
    many = refusal(data, PhotoLimits(max_pixels=40 * 56 - 1))
    assert (many.status, many.reason) == ("too_large", "the photo has 56 x 40 pixels, the limit is 2239")
    small = refusal(data, PhotoLimits(min_side_px=41))
    assert (small.status, small.reason) == ("too_small", "the photo has 56 x 40 pixels, its shorter side must have 41")


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "min_side_px"])
def test_a_limit_below_1_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        PhotoLimits(**{name: 0})


def test_a_warning_is_a_refusal_whatever_the_process_does_with_warnings() -> None:
    data = saved(Image.fromarray(picture()), "PNG", save_all=True, append_images=[Image.new("RGB", (56, 40))])
    broken = data.replace(b"acTL" + data[data.index(b"acTL") + 4 :][:4], b"acTL" + bytes(4))
    assert broken != data
    for action in ("ignore", "error"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            assert "Invalid APNG" in refusal(broken).reason


def test_reading_in_threads_leaves_the_warning_filters_as_they_were() -> None:
    data = saved(Image.fromarray(picture()), "PNG")
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [read_photo(data, limits=LIMITS) for _ in range(30)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_pixels_cannot_be_changed() -> None:
    photo = read(Image.fromarray(picture()))
    with pytest.raises(ValueError, match="read-only"):
        photo.pixels[0, 0, 0] = 1


def as_heic(image: Image.Image, **options: Any) -> bytes:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_comes_out_upright_once(orientation: int) -> None:
    rows, columns = np.mgrid[:96, :128]
    upright = np.stack([columns * 1.9, rows * 2.5, np.where((rows < 40) & (columns < 24), 250, 20)], axis=2)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright.astype(np.uint8))))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = read_photo(as_heic(stored, exif=exif.tobytes()), limits=LIMITS)
    assert (photo.full_width, photo.full_height) == (photo.width, photo.height) == (128, 96)
    assert photo.exif_orientation == orientation
    assert np.abs(photo.pixels.astype(int) - upright).mean() < 4


def icc_profile(*, primaries: tuple[tuple[float, float, float], ...], gamma: float, name: str) -> bytes:
    """A matrix profile by hand: XYZ (D50) of red, green and blue, one gamma."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    text = name.encode("utf-16-be")
    described = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    bodies = {
        b"desc": described + bytes(-len(described) % 4),
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        b"rXYZ": xyz(primaries[0]),
        b"gXYZ": xyz(primaries[1]),
        b"bXYZ": xyz(primaries[2]),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, body, at = b"", b"", 128 + 4 + 12 * len(bodies)
    for tag, data in bodies.items():
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    size = at + len(body)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(bodies)) + table + body


DISPLAY_P3 = icc_profile(
    primaries=((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), gamma=2.2, name="P3"
)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_wide_gamut_profile_is_converted_to_srgb(format_name: str) -> None:
    image = Image.new("RGB", (64, 48), (200, 120, 90))
    exact = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
    converted = read(image, format_name, icc_profile=DISPLAY_P3, **exact.get(format_name, {}))
    red, green, blue = converted.pixels[20, 20].astype(int)
    assert 205 <= red <= 222  # P3's red of 200 is a stronger one in sRGB, its green and blue weaker
    assert 108 <= green <= 119
    assert 75 <= blue <= 89
    np.testing.assert_allclose(
        read(image, format_name, **exact.get(format_name, {})).pixels[20, 20], image.getpixel((0, 0)), atol=2
    )


def test_an_srgb_profile_changes_no_pixel_and_a_grey_or_broken_one_loses_no_photo() -> None:
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile", DISPLAY_P3[:100], bytes(5 * 2**20)):
        np.testing.assert_array_equal(read(Image.fromarray(picture()), "TIFF", icc_profile=profile).pixels, picture())
    grey = Image.fromarray(picture()[..., 0])
    wanted = np.repeat(picture()[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read(grey, icc_profile=DISPLAY_P3).pixels, wanted)  # a profile for other pixels


def test_cmyk_without_a_profile_is_converted_plainly() -> None:
    image = Image.fromarray(picture()).convert("CMYK")
    assert np.abs(read(image, "JPEG", quality=100).pixels.astype(int) - picture()).mean() < 8


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_long_side_is_bounded_and_the_full_size_stays_known(format_name: str, orientation: int) -> None:
    rows, columns = np.mgrid[:600, :900]
    upright = np.stack([columns / 4, rows / 3, (rows + columns) / 8], axis=2).astype(np.uint8)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(stored, format_name, exif=exif)
    small = read_photo(data, limits=LIMITS, max_side_px=200)
    assert (small.width, small.height) == (200, 133)
    assert (small.full_width, small.full_height) == (900, 600)
    assert (small.full is None) == (format_name == "JPEG")  # only a JPEG need not be decoded whole
    wanted = np.asarray(Image.fromarray(upright).resize((200, 133), Image.Resampling.BOX)).astype(int)
    assert np.abs(small.pixels - wanted).mean() < 3
    full = full_pixels(small, data, limits=LIMITS)
    assert full.shape == (600, 900, 3)
    assert np.abs(full.astype(int) - upright).mean() < 3


def test_a_photo_within_the_bound_is_not_resampled() -> None:
    data = saved(Image.fromarray(picture()), "PNG")
    photo = read_photo(data, limits=LIMITS, max_side_px=56)
    np.testing.assert_array_equal(photo.pixels, picture())
    assert photo.full is photo.pixels


def test_a_very_long_photo_keeps_a_pixel_of_its_short_side() -> None:
    photo = read_photo(saved(Image.new("RGB", (9000, 20)), "PNG"), limits=LIMITS, max_side_px=100)
    assert (photo.width, photo.height) == (100, 1)


def test_a_refusal_survives_the_way_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(PhotoRefused("too_small", "why")))
    assert (error.status, error.reason, str(error)) == ("too_small", "why", "why")


def test_suffixes_are_lower_case_with_their_dot() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic"} <= SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 4), (0, 5, 3)])
def test_require_rgb_names_place_and_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"here: wanted uint8 \(H, W, 3\).*got uint8 \({shape[0]}, {shape[1]}"):
        require_rgb(np.zeros(shape, np.uint8), where="here")
