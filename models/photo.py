"""Reading a photo: bytes of any origin become upright RGB pixels, or a refusal that says why."""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from models.colour import to_srgb

__all__ = [
    "SUFFIXES",
    "Photo",
    "PhotoLimits",
    "PhotoRefused",
    "full_pixels",
    "read_photo",
    "read_whole_photo",
    "require_rgb",
]

UInt8Array = npt.NDArray[np.uint8]
RefusalStatus = Literal["unreadable", "too_large", "too_small"]

SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".avif",
        ".heic",
        ".heif",
        ".hif",
    }
)
"""Suffixes of the files that are read, in lower case. What a file really holds is found from its bytes."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REASON_CHARS = 200
_warning_filters = threading.Lock()


@dataclass(frozen=True)
class PhotoLimits:
    """What a photo may be; all three are checked before its pixels are decoded.

    Args:
        max_bytes: of the file.
        max_pixels: width times height.
        min_side_px: of the shorter side.

    Raises:
        ValueError: a limit is less than 1; the message names it.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 40_000_000
    min_side_px: int = 20

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "min_side_px"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo's pixels.

    Args:
        pixels: uint8, (height, width, 3), RGB, upright; read-only.
        exif_orientation: 1 to 8, what the file said before its pixels were turned upright; 1 when it said nothing.
        full_width: columns of the upright photo at full size, of which `pixels` may be a smaller version.
        full_height: rows of it.
        full: its pixels, where they had to be decoded; None where only a smaller version was.
    """

    pixels: UInt8Array
    exif_orientation: int
    full_width: int
    full_height: int
    full: UInt8Array | None

    @property
    def width(self) -> int:
        """Columns of `pixels`."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Rows of `pixels`."""
        return int(self.pixels.shape[0])


class PhotoRefused(ValueError):  # noqa: N818  a refusal is an answer about one photo, not a failure
    """A photo cannot be used.

    Args:
        status: "unreadable", "too_large" or "too_small".
        reason: one sentence, the same for the same bytes.
    """

    def __init__(self, status: RefusalStatus, reason: str) -> None:
        super().__init__(reason)
        self.status: RefusalStatus = status
        self.reason = reason

    def __reduce__(self) -> tuple[type["PhotoRefused"], tuple[RefusalStatus, str]]:
        return PhotoRefused, (self.status, self.reason)


def read_photo(data: bytes, *, limits: PhotoLimits, max_side_px: int | None = None) -> Photo:
    """Decode a photo, turn it upright and convert it to sRGB.

    JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF and HEIC are read, whatever the file was called. Of several frames the first one
    counts. Grey, palette, CMYK and 16-bit pixels become 8-bit RGB; transparency is laid over white. A file whose
    header or EXIF data Pillow warns about is refused.

    Args:
        data: the whole file; it may be damaged or hostile.
        limits: checked on the header, before memory for pixels is taken.
        max_side_px: a photo with a longer side is given smaller, so that the side has this many pixels. A JPEG is then
            decoded at a half, a quarter or an eighth of its size as far as that suffices, the rest is averaging.

    Raises:
        PhotoRefused: the photo is unreadable, too large or too small; the reason names the numbers or the decoder's
            complaint.
    """
    if len(data) > limits.max_bytes:
        raise PhotoRefused("too_large", f"the file has {len(data)} bytes, the limit is {limits.max_bytes}")
    try:
        return _decode(data, limits, max_side_px)
    except PhotoRefused:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PhotoRefused("too_large", _complaint(error)) from error
    except UnidentifiedImageError as error:
        raise PhotoRefused("unreadable", f"the bytes are no image in one of {', '.join(_FORMATS)}, HEIC") from error
    except MemoryError as error:
        raise PhotoRefused("unreadable", "decoding it takes more memory than one photo may take") from error
    except Exception as error:  # decoders of hostile bytes raise nearly everything
        raise PhotoRefused("unreadable", _complaint(error)) from error


def full_pixels(photo: Photo, data: bytes, *, limits: PhotoLimits) -> UInt8Array:
    """The photo's pixels at full size, uint8 (full_height, full_width, 3); decoded again where they were not kept.

    Args:
        photo: as `read_photo` gave it.
        data: the file it was read from.
        limits: the same.

    Raises:
        PhotoRefused: the smaller version could be decoded, the photo itself cannot.
    """
    return photo.full if photo.full is not None else read_photo(data, limits=limits).pixels


def read_whole_photo(data: bytes, *, limits: PhotoLimits, max_side_px: int) -> Photo:
    """The photo as `read_photo` gives it, its pixels at full size always with it; arguments and errors as there."""
    photo = read_photo(data, limits=limits, max_side_px=max_side_px)
    return replace(photo, full=full_pixels(photo, data, limits=limits))


def require_rgb(image_HWC: UInt8Array, *, where: str) -> None:
    """Refuse what is no RGB image.

    Raises:
        ValueError: the array is not uint8 (H, W, 3) with at least one pixel; the message names dtype and shape
            received.
    """
    shape = image_HWC.shape
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"{where}: wanted uint8 (H, W, 3) with H and W over 0, got {image_HWC.dtype} {shape}")


def _decode(data: bytes, limits: PhotoLimits, max_side_px: int | None) -> Photo:
    formats: tuple[str, ...] = _FORMATS
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        _register_heif()
        formats = ("AVIF", "HEIF")
    with _warnings_are_errors():
        opened = Image.open(io.BytesIO(data), formats=formats)
    with opened as image:
        _check_size(image, limits)
        if image.format == "PNG":  # its EXIF data may follow the pixels
            image.load()
        with _warnings_are_errors():
            orientation = _orientation(image)
        turned_by_decoder = image.format in {"TIFF", "HEIF"}
        size = image.size
        target = _target(size, max_side_px)
        if image.format == "JPEG" and target != size:
            image.draft(None, target)
        rgb = _to_rgb(image)
    if turned_by_decoder:
        size, target, orientation_left = rgb.size, _target(rgb.size, max_side_px), 1
    else:
        orientation_left = orientation
    full = _upright(rgb, orientation_left) if rgb.size == size else None
    small = rgb.resize(target, Image.Resampling.BILINEAR, reducing_gap=2.0) if rgb.size != target else None
    pixels = full if full is not None and small is None else _upright(small or rgb, orientation_left)
    width, height = size[::-1] if orientation_left >= 5 else size
    return Photo(pixels, exif_orientation=orientation, full_width=width, full_height=height, full=full)


def _upright(rgb: Image.Image, orientation: int) -> UInt8Array:
    return np.asarray(rgb if orientation == 1 else rgb.transpose(_UPRIGHT[orientation]))


def _target(size: tuple[int, int], max_side_px: int | None) -> tuple[int, int]:
    """The size at which a photo is given."""
    if max_side_px is None or max(size) <= max_side_px:
        return size
    width, height = (max(1, round(side * max_side_px / max(size))) for side in size)
    return width, height


@lru_cache(maxsize=1)
def _register_heif() -> None:
    """Let Pillow open HEIC, by pillow-heif; not before somebody brings one."""
    import pillow_heif  # noqa: PLC0415

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


@contextmanager
def _warnings_are_errors() -> Iterator[None]:
    """For headers and EXIF data, not for pixels: one thread at a time gets through, since filters belong to the process."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _check_size(image: Image.Image, limits: PhotoLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise PhotoRefused("too_large", f"the photo has {width} x {height} pixels, the limit is {limits.max_pixels}")
    if min(width, height) < limits.min_side_px:
        raise PhotoRefused(
            "too_small", f"the photo has {width} x {height} pixels, its shorter side must have {limits.min_side_px}"
        )


def _orientation(image: Image.Image) -> int:
    value = image.info.get("original_orientation") or image.getexif().get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB in sRGB."""
    image.load()
    profile = image.info.get("icc_profile")
    flat = _flat(image)
    return to_srgb(flat, profile) if profile else flat.convert("RGB") if flat.mode != "RGB" else flat


def _flat(image: Image.Image) -> Image.Image:
    """8-bit L, RGB or CMYK without transparency, in the photo's own colours."""
    if image.mode in {"L", "RGB", "CMYK"} and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        levels = np.clip(np.asarray(image), 0, 65535) >> 8
        return Image.fromarray(levels.astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _complaint(error: BaseException) -> str:
    """The error's class and message in one printable line, without what differs from run to run."""
    message = re.sub(r"<[^>]*>|0x[0-9a-fA-F]+", "...", " ".join(str(error).split()))
    shown = "".join(c if c.isprintable() else "?" for c in message)
    return f"the decoder gave up: {type(error).__name__}: {shown}"[:_REASON_CHARS].rstrip(": ")
