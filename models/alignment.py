"""Alignment: a similarity transform lays five landmarks onto a template, and the face is warped along.

Points are (x, y) with whole numbers at the pixels' centres, as landmarks and OpenCV count. Pillow counts from the
pixels' corners, half a pixel further: matrices named `corner` work in those coordinates.
"""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.photo import require_rgb

__all__ = ["ARCFACE_112", "similarity_transform", "template_points", "warp_to_template"]

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

ARCFACE_112: tuple[tuple[float, float], ...] = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Left eye, right eye, nose, left and right mouth corner in a 112 x 112 input, as seen in the picture."""

_SHRINK_BELOW = 0.6


def template_points(*, height: int, width: int) -> FloatArray:
    """The arcface template for an input of any size, float64 (5, 2): ARCFACE_112 times (width, height) / 112.

    References:
        Deng, Guo, Xue, Zafeiriou. ArcFace. CVPR 2019. The coordinates and their scaling are insightface's.
    """
    return np.array(ARCFACE_112) * (width / 112, height / 112)


def similarity_transform(points_N2: npt.ArrayLike, targets_N2: npt.ArrayLike) -> FloatArray:
    """The rotation, uniform scale and shift, without mirroring, that lays points onto targets with least squared error.

    Args:
        points_N2: (N, 2), at least two different ones.
        targets_N2: (N, 2).

    Returns:
        float64 (2, 3): target = matrix @ (x, y, 1).

    Raises:
        ValueError: a coordinate is not finite or all points are the same one; the message shows them.

    References:
        Umeyama. Least-squares estimation of transformation parameters between two point patterns. TPAMI 1991, eqs. 38
        to 43.
    """
    points_N2, targets_N2 = np.asarray(points_N2, np.float64), np.asarray(targets_N2, np.float64)
    centre, target_centre = points_N2.mean(axis=0), targets_N2.mean(axis=0)
    spread_N2 = points_N2 - centre
    variance = (spread_N2**2).sum(axis=1).mean()
    if not (math.isfinite(variance) and variance > 0 and np.isfinite(targets_N2).all()):
        raise ValueError(f"wanted finite points that differ, got {points_N2.tolist()} for {targets_N2.tolist()}")
    u, strengths, vt = np.linalg.svd((targets_N2 - target_centre).T @ spread_N2 / len(points_N2))
    signs = np.array([1.0, 1.0 if np.linalg.det(u) * np.linalg.det(vt) > 0 else -1.0])
    linear = (strengths @ signs / variance) * (u * signs) @ vt
    return np.column_stack([linear, target_centre - linear @ centre])


def warp_to_template(
    image_HWC: UInt8Array, landmarks_52: npt.NDArray[np.floating], *, height: int, width: int
) -> UInt8Array:
    """The aligned face: the image under the similarity transform that lays its landmarks onto the arcface template.

    Sampling is bilinear; a face over 1.7 times the template's size is first shrunk with an antialiasing filter, since
    bilinear sampling alone would skip pixels. Outside the image it is black.

    Args:
        image_HWC: uint8, (H, W, 3), RGB.
        landmarks_52: (5, 2), left eye, right eye, nose, left and right mouth corner in pixels of the image.
        height: rows of the result.
        width: columns of the result.

    Returns:
        uint8, (height, width, 3), RGB.

    Raises:
        ValueError: the image is not uint8 (H, W, 3), or the landmarks are all one point or not finite.

    References:
        Deng, Guo, Xue, Zafeiriou. ArcFace. CVPR 2019. Equal to insightface's OpenCV warp but for the shrinking and for
        the outermost half pixel of the image, which is not blended with black.
    """
    require_rgb(image_HWC, where="warp_to_template")
    to_template = similarity_transform(landmarks_52, template_points(height=height, width=width))
    scale = math.sqrt(abs(np.linalg.det(to_template[:, :2])))
    corner_33 = _shift(0.5, 0.5) @ np.vstack([to_template, (0, 0, 1)]) @ _shift(-0.5, -0.5)
    back_33 = np.linalg.inv(corner_33)
    bounds = _needed_part(image_HWC, back_33, height=height, width=width, margin_px=2 * max(1.0, 1 / scale))
    if bounds is None:
        return np.zeros((height, width, 3), dtype=np.uint8)
    x1, y1, x2, y2 = bounds
    part = Image.fromarray(image_HWC[y1:y2, x1:x2])
    back_33 = _shift(-x1, -y1) @ back_33
    if scale < _SHRINK_BELOW:
        size = (math.ceil(part.width * scale), math.ceil(part.height * scale))
        back_33 = np.diag([size[0] / part.width, size[1] / part.height, 1]) @ back_33
        part = part.resize(size, Image.Resampling.BILINEAR)
    coefficients = tuple(back_33[:2].ravel().tolist())
    warped = part.transform((width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.array(warped)


def _shift(x: float, y: float) -> FloatArray:
    return np.array([(1, 0, x), (0, 1, y), (0, 0, 1)], dtype=np.float64)


def _needed_part(
    image_HWC: UInt8Array, back_33: FloatArray, *, height: int, width: int, margin_px: float
) -> tuple[int, int, int, int] | None:
    """The part of the image the result is sampled from, in whole pixels; None if it lies outside."""
    corners_34 = np.array([(0, width, width, 0), (0, 0, height, height), (1, 1, 1, 1)])
    seen_24 = (back_33 @ corners_34)[:2]
    extent = np.array(image_HWC.shape[1::-1])
    first = np.clip(np.floor(seen_24.min(axis=1) - margin_px), 0, extent).astype(int)
    end = np.clip(np.ceil(seen_24.max(axis=1) + margin_px), 0, extent).astype(int)
    if (end <= first).any():
        return None
    return int(first[0]), int(first[1]), int(end[0]), int(end[1])
