"""The arithmetic of boxes between the cascade's stages.

Boxes are float32 (N, 4): x1, y1, x2, y2 in pixels of the photo. It is done in float32 and in the published order of
operations, since the results are cut to whole pixels on the way. Sides count as x2 - x1 after PNet and as x2 - x1 + 1
after RNet and ONet: the published cascade is trained and evaluated that way.
"""

import numpy as np
import numpy.typing as npt

from models.mtcnn.pyramid import PNET_WINDOW_PX

__all__ = ["make_square", "place_points", "shift_boxes", "window_boxes", "windows_inside"]

FloatArray = npt.NDArray[np.float32]

_PNET_STRIDE_PX = 2


def window_boxes(cells_N2: npt.NDArray[np.int64], *, scale: float | FloatArray) -> FloatArray:
    """The boxes in the photo of PNet's windows in the pyramid.

    Args:
        cells_N2: int64, (N, 2), row and column in PNet's output at its level.
        scale: level pixels per photo pixel, one for all or float32 (N,).
    """
    scale_N1 = np.asarray(scale, dtype=np.float32).reshape(-1, 1)
    corner_N2 = cells_N2[:, ::-1].astype(np.float32) * _PNET_STRIDE_PX
    first_N2 = np.floor((corner_N2 + 1) / scale_N1)
    last_N2 = np.floor((corner_N2 + PNET_WINDOW_PX) / scale_N1)
    return np.concatenate([first_N2, last_N2], axis=1)


def shift_boxes(boxes_N4: FloatArray, shift_N4: FloatArray, *, extra_px: int) -> FloatArray:
    """Boxes with a net's corrections applied.

    Args:
        boxes_N4: float32, (N, 4).
        shift_N4: float32, (N, 4), corrections in sides of the box.
        extra_px: added to a side before it is multiplied: 0 after PNet, 1 after RNet and ONet.
    """
    side_N2 = boxes_N4[:, 2:] - boxes_N4[:, :2] + np.float32(extra_px)
    return boxes_N4 + shift_N4 * np.tile(side_N2, 2)


def make_square(boxes_N4: FloatArray) -> FloatArray:
    """Squares around the same centres with the boxes' longer sides."""
    side_N2 = boxes_N4[:, 2:] - boxes_N4[:, :2]
    longer_N1 = side_N2.max(axis=1, keepdims=True)
    half = np.float32(0.5)
    first_N2 = boxes_N4[:, :2] + side_N2 * half - longer_N1 * half
    return np.concatenate([first_N2, first_N2 + longer_N1], axis=1)


def windows_inside(boxes_N4: FloatArray, *, sizes_N2: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The pixels of the photo each box covers, as int64 (N, 4): first column, first row, end column, end row.

    Corners are cut to whole pixels and counted from 1, as in the published (MATLAB) cascade. A window whose end does
    not lie after its start is empty: the box lies outside the photo.

    Args:
        boxes_N4: float32, (N, 4).
        sizes_N2: int64, (N, 2) or (2,), height and width of each one's photo.
    """
    whole_N4 = np.trunc(boxes_N4).astype(np.int64)
    first_N2 = np.maximum(whole_N4[:, :2], 1) - 1
    end_N2 = np.minimum(whole_N4[:, 2:], sizes_N2[..., ::-1])
    return np.concatenate([first_N2, end_N2], axis=1)


def place_points(boxes_N4: FloatArray, points_N10: FloatArray) -> FloatArray:
    """Landmarks in pixels of the photo, float32, (N, 5, 2), x and y.

    Args:
        boxes_N4: float32, (N, 4), the candidates ONet saw, before its correction.
        points_N10: float32, (N, 10), five x, then five y, in sides of the box.
    """
    side_N12 = (boxes_N4[:, 2:] - boxes_N4[:, :2] + np.float32(1))[:, None, :]
    points_N52 = points_N10.reshape(-1, 2, 5).transpose(0, 2, 1)
    return side_N12 * points_N52 + boxes_N4[:, None, :2] - np.float32(1)
