"""Quarter turns of a photo, and the way back for what was found in the turned one.

A rotation is in degrees counter-clockwise, of 0, 90, 180 and 270. Edge coordinates count from the left top corner of the
first pixel (boxes), centre coordinates from its centre (landmarks).
"""

import numpy as np
import numpy.typing as npt

__all__ = ["turn", "turn_boxes_back", "turn_points_back"]

FloatArray = npt.NDArray[np.float64]


def turn(pixels_HWC: npt.NDArray[np.uint8], rotation: int) -> npt.NDArray[np.uint8]:
    """The photo turned, uint8; (W, H, 3) after a quarter turn.

    Raises:
        ValueError: the rotation is not 0, 90, 180 or 270.
    """
    return np.ascontiguousarray(np.rot90(pixels_HWC, k=_quarters(rotation)))


def turn_points_back(points_N2: npt.NDArray[np.floating], rotation: int, *, height: int, width: int) -> FloatArray:
    """Points of the turned photo in the photo before, centre coordinates, float64 (N, 2), x and y.

    Args:
        points_N2: (N, 2), in the turned photo.
        rotation: by which it was turned.
        height: rows of the photo before.
        width: columns of the photo before.
    """
    return _back(np.asarray(points_N2, np.float64), _quarters(rotation), last_x=width - 1, last_y=height - 1)


def turn_boxes_back(boxes_N4: npt.NDArray[np.floating], rotation: int, *, height: int, width: int) -> FloatArray:
    """Boxes of the turned photo in the photo before, edge coordinates, float64 (N, 4), x1, y1, x2, y2.

    Args:
        boxes_N4: (N, 4), in the turned photo.
        rotation: by which it was turned.
        height: rows of the photo before.
        width: columns of the photo before.
    """
    corners_N22 = np.asarray(boxes_N4, np.float64).reshape(-1, 2, 2)
    back_N22 = _back(corners_N22, _quarters(rotation), last_x=width, last_y=height)
    return np.concatenate([back_N22.min(axis=1), back_N22.max(axis=1)], axis=1)


def _quarters(rotation: int) -> int:
    if rotation not in {0, 90, 180, 270}:
        raise ValueError(f"a rotation is 0, 90, 180 or 270 degrees, got {rotation!r}")
    return rotation // 90


def _back(points: FloatArray, quarters: int, *, last_x: float, last_y: float) -> FloatArray:
    x, y = points[..., 0], points[..., 1]
    before = [(x, y), (last_x - y, x), (last_x - x, last_y - y), (y, last_y - x)][quarters]
    return np.stack(before, axis=-1)
