"""The stored crop: a face with its surroundings, cut square and unwarped, from which every encoder's input can be made.

point_in_crop = (point_in_photo - origin) * scale, exact for boxes, which lie between pixels. Landmarks count from pixels'
centres: in a shrunk crop they are off by (1 - scale) / 2 of its pixels, at most a fifth of a pixel in a 112 x 112 input.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.photo import require_rgb

__all__ = ["Crop", "CropSettings", "cut_crop", "decode_crop", "encode_crop"]

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CropSettings:
    """How crops are cut and stored.

    Args:
        size_factor: side of the crop in longer sides of the box, 1 to 4.
        max_face_px: longest a box's longer side may be in the crop, pixels; larger faces are shrunk to it.
        jpeg_quality: 1 to 100.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    size_factor: float = 2.0
    max_face_px: int = 256
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        if not 1 <= self.size_factor <= 4:
            raise ValueError(f"size_factor must lie in 1..4, got {self.size_factor!r}")
        if not 16 <= self.max_face_px <= 4096:
            raise ValueError(f"max_face_px must lie in 16..4096, got {self.max_face_px!r}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must lie in 1..100, got {self.jpeg_quality!r}")


@dataclass(frozen=True, eq=False)
class Crop:
    """A square cut out of a photo.

    Args:
        pixels: uint8, (S, S, 3), RGB, black outside the photo.
        origin: float64, (2,), x and y in the photo of the crop's left top corner.
        scale: crop pixels per photo pixel, at most 1.
    """

    pixels: UInt8Array
    origin: FloatArray
    scale: float

    def to_crop(self, points_N2: npt.NDArray[np.floating]) -> FloatArray:
        """Points of the photo in pixels of the crop, float64 (N, 2)."""
        return (np.asarray(points_N2, np.float64) - self.origin) * self.scale

    def to_photo(self, points_N2: npt.NDArray[np.floating]) -> FloatArray:
        """Points of the crop in pixels of the photo, float64 (N, 2)."""
        return np.asarray(points_N2, np.float64) / self.scale + self.origin

    def photo_extent(self, *, photo_height: int, photo_width: int) -> tuple[int, int, int, int]:
        """The part of the crop that shows the photo, x1, y1, x2, y2 in whole pixels of the crop; the rest is black."""
        side = self.pixels.shape[0]
        first = _whole_pixel(self.origin, self.scale)
        x1, y1 = (min(max(-int(k), 0), side) for k in first)
        x2 = min(max(_covered(photo_width, self.scale) - int(first[0]), x1), side)
        y2 = min(max(_covered(photo_height, self.scale) - int(first[1]), y1), side)
        return x1, y1, x2, y2


def cut_crop(photo_HWC: UInt8Array, box: npt.NDArray[np.floating], *, settings: CropSettings) -> Crop:
    """The stored crop of one face.

    The crop's pixels lie on a grid that starts at the photo's left top corner. So a face that need not be shrunk is
    copied pixel by pixel, never resampled: scale is then 1, origin and side are whole numbers, and the box's centre
    lies within half a pixel of the crop's. A larger face is shrunk with an antialiasing filter; a crop pixel that the
    photo covers only in part, at its right or lower edge, is black.

    Args:
        photo_HWC: uint8, (H, W, 3), RGB, upright.
        box: (4,), x1, y1, x2, y2 in pixels of the photo; it may reach over its edge or lie outside.
        settings: size_factor, max_face_px.

    Returns:
        pixels, uint8 (S, S, 3), S about size_factor times the box's longer side, at most size_factor * max_face_px;
        origin; scale.

    Raises:
        ValueError: the photo is not uint8 (H, W, 3), or the box is not four finite numbers.
    """
    require_rgb(photo_HWC, where="cut_crop")
    corners = np.asarray(box, np.float64)
    if corners.shape != (4,) or not np.isfinite(corners).all():
        raise ValueError(f"cut_crop: wanted a box of four finite numbers, got {box!r}")
    longer_px = max(corners[2] - corners[0], corners[3] - corners[1], 1.0)
    scale = min(1.0, settings.max_face_px / longer_px)
    side = math.ceil(settings.size_factor * longer_px * scale - 1e-6)
    first = np.round((corners[:2] + corners[2:]) / 2 * scale - side / 2)
    crop = Crop(np.zeros((side, side, 3), dtype=np.uint8), origin=first / scale, scale=float(scale))
    _fill(crop, photo_HWC)
    return crop


def encode_crop(crop: Crop, *, settings: CropSettings) -> bytes:
    """The crop's pixels as JPEG without metadata, colour at full resolution (4:4:4)."""
    buffer = io.BytesIO()
    Image.fromarray(crop.pixels).save(buffer, "JPEG", quality=settings.jpeg_quality, subsampling=0)
    return buffer.getvalue()


def decode_crop(data: bytes) -> UInt8Array:
    """The pixels of a stored crop, uint8 (S, S, 3), RGB.

    Raises:
        ValueError: the bytes are no JPEG; the message says how many they are.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"a stored crop of {len(data)} bytes is no JPEG that can be read; verify the store") from error


def _fill(crop: Crop, photo_HWC: UInt8Array) -> None:
    """Write the photo into the part of the crop it covers."""
    height, width = photo_HWC.shape[:2]
    x1, y1, x2, y2 = crop.photo_extent(photo_height=height, photo_width=width)
    if x1 == x2 or y1 == y2:
        return
    (left, top), (right, bottom) = crop.to_photo(np.array([(x1, y1), (x2, y2)]))
    right, bottom = min(right, width), min(bottom, height)
    column, row = max(math.floor(left), 0), max(math.floor(top), 0)
    part_HWC = photo_HWC[row : math.ceil(bottom), column : math.ceil(right)]
    if crop.scale < 1:
        part = Image.fromarray(part_HWC)
        first = (max(left - column, 0.0), max(top - row, 0.0))
        end = (min(right - column, part.width), min(bottom - row, part.height))
        part_HWC = np.asarray(part.resize((x2 - x1, y2 - y1), Image.Resampling.BICUBIC, box=first + end))
    crop.pixels[y1:y2, x1:x2] = part_HWC


def _whole_pixel(origin: FloatArray, scale: float) -> FloatArray:
    """The origin in crop pixels from the photo's left top corner: a whole number by construction."""
    return np.round(np.asarray(origin, np.float64) * scale)


def _covered(photo_px: int, scale: float) -> int:
    """How many whole crop pixels the photo's width or height covers."""
    return math.floor(photo_px * scale + 1e-6)
