"""An encoder's input: the face cut out of a photo, or out of its stored crop, by the encoder's own geometry."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.alignment import warp_to_template
from models.card import BoxMargin, Template
from models.photo import require_rgb
from models.rotation import turn

__all__ = ["make_face_input"]

UInt8Array = npt.NDArray[np.uint8]


def make_face_input(
    image_HWC: UInt8Array,
    box: npt.NDArray[np.floating],
    landmarks_52: npt.NDArray[np.floating],
    *,
    geometry: Template | BoxMargin,
    height: int,
    width: int,
    extent: tuple[float, float, float, float] | None = None,
    rotation: int = 0,
) -> UInt8Array:
    """The face as its encoder wants to see it, before pixels are scaled.

    `Template` warps the five landmarks onto the template. `BoxMargin` makes each side of the box longer by box_margin
    times its length, half at each end, clips it, and resizes it with antialiasing without keeping the aspect.

    Works on the photo and on its stored crop alike, with box and landmarks carried along. In the photo a widened box is
    clipped at the photo's edge. A crop goes on beyond it, in black: give the photo's rectangle inside the crop as
    `extent` (`Crop.photo_extent`) and both paths see the same; without it a face at the edge gets a black border from
    the crop.

    Args:
        image_HWC: uint8, (H, W, 3), RGB.
        box: (4,), x1, y1, x2, y2 in pixels of the image.
        landmarks_52: (5, 2), in pixels of the image.
        geometry: the encoder's.
        height: rows of the result.
        width: columns of the result.
        extent: x1, y1, x2, y2 of the part of the image that shows the photo; all of it if not given. Only a box is
            clipped: outside its source a warp is black anyway.
        rotation: degrees counter-clockwise by which the image must be turned for the face to be upright: 0, 90, 180 or
            270. A box's region is turned by it; landmarks say it themselves.

    Returns:
        uint8, (height, width, 3), RGB; black if the box lies outside the extent.

    Raises:
        ValueError: the image is not uint8 (H, W, 3), the box is not finite, or the landmarks cannot be aligned.

    References:
        Box geometry: facenet-pytorch's extract_face with box_margin = margin / (image_size - margin), but for the
        widened box, which is there cut to whole pixels.
    """
    require_rgb(image_HWC, where="make_face_input")
    if isinstance(geometry, Template):
        return warp_to_template(image_HWC, landmarks_52, height=height, width=width)
    region = _clip(_widened(box, geometry.box_margin), image_HWC, extent)
    lying = rotation in {90, 270}
    lying_HWC = _resize_region(image_HWC, region, height=width if lying else height, width=height if lying else width)
    return turn(lying_HWC, rotation)


def _widened(box: npt.NDArray[np.floating], box_margin: float) -> npt.NDArray[np.float64]:
    corners = np.asarray(box, np.float64)
    if corners.shape != (4,) or not np.isfinite(corners).all():
        raise ValueError(f"make_face_input: wanted a box of four finite numbers, got {box!r}")
    half_margin = (corners[2:] - corners[:2]) * box_margin / 2
    return np.concatenate([corners[:2] - half_margin, corners[2:] + half_margin])


def _clip(
    region: npt.NDArray[np.float64], image_HWC: UInt8Array, extent: tuple[float, float, float, float] | None
) -> tuple[float, float, float, float]:
    height, width = image_HWC.shape[:2]
    x1, y1, x2, y2 = region.tolist()
    left, top, right, bottom = extent or (0, 0, width, height)
    return max(x1, left, 0.0), max(y1, top, 0.0), min(x2, right, width), min(y2, bottom, height)


def _resize_region(
    image_HWC: UInt8Array, region: tuple[float, float, float, float], *, height: int, width: int
) -> UInt8Array:
    x1, y1, x2, y2 = region
    if not (x2 > x1 and y2 > y1):
        return np.zeros((height, width, 3), dtype=np.uint8)
    column, row = math.floor(x1), math.floor(y1)
    part = Image.fromarray(image_HWC[row : math.ceil(y2), column : math.ceil(x2)])
    inner = (x1 - column, y1 - row, x2 - column, y2 - row)
    return np.array(part.resize((width, height), Image.Resampling.BILINEAR, box=inner))
