"""Reading a photo: bytes of any origin become upright RGB pixels, or a refusal that says why."""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

__all__ = ["SUFFIXES", "Photo", "PhotoLimits", "PhotoRefused", "read_photo", "require_rgb"]

UInt8Array = npt.NDArray[np.uint8]
RefusalStatus = Literal["unreadable", "too_large", "too_small"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
"""Suffixes of the files that are read, in lower case. What a file really holds is found from its bytes."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
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
    """

    pixels: UInt8Array
    exif_orientation: int

    @property
    def width(self) -> int:
        """Columns of the upright photo."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Rows of the upright photo."""
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


def read_photo(data: bytes, *, limits: PhotoLimits) -> Photo:
    """Decode a photo and turn it upright.

    JPEG, PNG, WebP, BMP, GIF, TIFF and AVIF are read, whatever the file was called. Of several frames the first one
    counts. Grey, palette, CMYK and 16-bit pixels become 8-bit RGB; transparency is laid over white. A file whose
    header or EXIF data Pillow warns about is refused.

    Args:
        data: the whole file; it may be damaged or hostile.
        limits: checked on the header, before memory for pixels is taken.

    Raises:
        PhotoRefused: the photo is unreadable, too large or too small; the reason names the numbers or the decoder's
            complaint.
    """
    if len(data) > limits.max_bytes:
        raise PhotoRefused("too_large", f"the file has {len(data)} bytes, the limit is {limits.max_bytes}")
    try:
        return _decode(data, limits)
    except PhotoRefused:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PhotoRefused("too_large", _complaint(error)) from error
    except UnidentifiedImageError as error:
        raise PhotoRefused("unreadable", f"the bytes are no image in one of {', '.join(_FORMATS)}") from error
    except Exception as error:  # decoders of hostile bytes raise nearly everything
        raise PhotoRefused("unreadable", _complaint(error)) from error


def require_rgb(image_HWC: UInt8Array, *, where: str) -> None:
    """Refuse what is no RGB image.

    Raises:
        ValueError: the array is not uint8 (H, W, 3) with at least one pixel; the message names dtype and shape
            received.
    """
    shape = image_HWC.shape
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"{where}: wanted uint8 (H, W, 3) with H and W over 0, got {image_HWC.dtype} {shape}")


def _decode(data: bytes, limits: PhotoLimits) -> Photo:
    with _warnings_are_errors():
        opened = Image.open(io.BytesIO(data), formats=_FORMATS)
    with opened as image:
        _check_size(image, limits)
        if image.format == "PNG":  # its EXIF data may follow the pixels
            image.load()
        with _warnings_are_errors():
            orientation = _orientation(image)
        turned_by_decoder = image.format == "TIFF"
        rgb = _to_rgb(image)
    if orientation != 1 and not turned_by_decoder:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return Photo(pixels=np.asarray(rgb), exif_orientation=orientation)


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
    value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        levels = np.clip(np.asarray(image), 0, 65535) >> 8
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _complaint(error: BaseException) -> str:
    """The error's class and message in one line, without what differs from run to run."""
    message = re.sub(r"<[^>]*>|0x[0-9a-fA-F]+", "...", " ".join(str(error).split()))
    return f"the decoder gave up: {type(error).__name__}: {message}"[:_REASON_CHARS].rstrip(": ")
