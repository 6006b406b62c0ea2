"""The cascade: PNet proposes at every scale, RNet refines, ONet decides and places the landmarks.

Shapes: N candidates, C = 3 channels, H rows, W columns; boxes are float32 (N, 4): x1, y1, x2, y2 in pixels of the
photo.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.mtcnn.boxes import make_square, place_points, shift_boxes, window_boxes, windows_inside
from models.mtcnn.nets import CascadeNets, PNet
from models.mtcnn.nms import suppress_by_smaller, suppress_by_union
from models.mtcnn.pyramid import cut_crops, normalise, pyramid_scales, resize_to_level
from models.photo import require_rgb

__all__ = ["ALGORITHM_VERSION", "CascadeSettings", "Face", "detect_faces"]

FloatArray = npt.NDArray[np.float32]

ALGORITHM_VERSION = 1
"""Part of a store's contract: raised by a change after which some photo has other faces, boxes or landmarks."""

_CHUNK_CROPS = 512
_RNET_SIDE_PX = 24
_ONET_SIDE_PX = 48


@dataclass(frozen=True)
class CascadeSettings:
    """What the cascade looks for; the defaults are facenet-pytorch's.

    Args:
        min_face_px: shortest side of a face that can be found, pixels, at least 6.
        thresholds: lowest score that passes PNet, RNet and ONet, three values in [0, 1].
        pyramid_factor: size of a pyramid level relative to the one before, in (0, 1).

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    min_face_px: float = 20
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    pyramid_factor: float = 0.709

    def __post_init__(self) -> None:
        if not 6 <= self.min_face_px < math.inf:
            raise ValueError(f"min_face_px must be at least 6, got {self.min_face_px!r}")
        if len(self.thresholds) != 3 or not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError(f"thresholds must be three numbers in [0, 1], got {self.thresholds!r}")
        if not 0 < self.pyramid_factor < 1:
            raise ValueError(f"pyramid_factor must lie between 0 and 1, got {self.pyramid_factor!r}")


@dataclass(frozen=True, eq=False)
class Face:
    """One detection in a photo.

    Args:
        box: float32, (4,), x1, y1, x2, y2 in pixels of the photo; it may reach over the photo's edge.
        score: ONet's, in [0, 1].
        landmarks: float32, (5, 2), x and y in pixels of the photo of left eye, right eye, nose, left and right mouth
            corner as seen in the photo.
    """

    box: FloatArray
    score: float
    landmarks: FloatArray


def detect_faces(photo_HWC: npt.NDArray[np.uint8], *, nets: CascadeNets, settings: CascadeSettings) -> list[Face]:
    """Find every face in one photo with the three-stage MTCNN cascade.

    No face is a normal answer: the list is then empty.

    Args:
        photo_HWC: uint8, (H, W, 3), RGB, upright (orientation is applied when the photo is read).
        nets: PNet, RNet and ONet on one device.
        settings: min_face_px, the shortest side that can be found; thresholds, lowest score a stage, three values in
            [0, 1]; pyramid_factor in (0, 1).

    Returns:
        Faces by falling score: box, float32 (x1, y1, x2, y2) in pixels of the photo; score in [0, 1]; landmarks,
        float32 (5, 2), left eye, right eye, nose, left and right mouth corner as seen in the photo.

    Raises:
        ValueError: the photo is not uint8 (H, W, 3); the message names the dtype and shape received.

    References:
        Zhang, Zhang, Li, Qiao. Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional Networks.
        2016. arXiv:1604.02878. Inference only; weights and all constants from facenet-pytorch, whose boxes it finds,
        except that a candidate outside the photo is dropped.
    """
    require_rgb(photo_HWC, where="detect_faces")
    pnet_threshold, rnet_threshold, onet_threshold = settings.thresholds
    pixels_1HWC = torch.from_numpy(photo_HWC.astype(np.float32, order="C"))[None]
    with torch.inference_mode():
        photo_1CHW = pixels_1HWC.to(nets.device).permute(0, 3, 1, 2)  # stays channels last, which the nets like
        boxes_N4 = _propose(photo_1CHW, nets.pnet, settings=settings, threshold=pnet_threshold)
        boxes_N4 = _refine(photo_1CHW, boxes_N4, nets.rnet, threshold=rnet_threshold)
        return _decide(photo_1CHW, boxes_N4, nets.onet, threshold=onet_threshold)


def _propose(photo_1CHW: Tensor, pnet: PNet, *, settings: CascadeSettings, threshold: float) -> FloatArray:
    """Square candidates, float32 (N, 4), from every pyramid level."""
    height, width = photo_1CHW.shape[-2:]
    scales = pyramid_scales(height, width, min_face_px=settings.min_face_px, pyramid_factor=settings.pyramid_factor)
    levels = [_propose_at(photo_1CHW, pnet, scale=scale, threshold=threshold) for scale in scales]
    if not levels:
        return np.empty((0, 4), dtype=np.float32)
    boxes_N4, scores_N, shift_N4 = (np.concatenate(column) for column in zip(*levels, strict=True))
    kept = suppress_by_union(boxes_N4, scores_N, iou_threshold=0.7)
    return make_square(shift_boxes(boxes_N4[kept], shift_N4[kept], extra_px=0))


def _propose_at(
    photo_1CHW: Tensor, pnet: PNet, *, scale: float, threshold: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The windows of one level that pass: boxes (N, 4), scores (N,), corrections (N, 4)."""
    score_1HW, shift_14HW = pnet(normalise(resize_to_level(photo_1CHW, scale)))
    passed_HW = score_1HW[0] >= threshold
    cells_N2 = passed_HW.nonzero().cpu().numpy()
    scores_N = score_1HW[0][passed_HW].cpu().numpy()
    shift_N4 = shift_14HW[0][:, passed_HW].T.cpu().numpy()
    boxes_N4 = window_boxes(cells_N2, scale=scale)
    kept = suppress_by_union(boxes_N4, scores_N, iou_threshold=0.5)
    return boxes_N4[kept], scores_N[kept], shift_N4[kept]


def _refine(photo_1CHW: Tensor, boxes_N4: FloatArray, rnet: nn.Module, *, threshold: float) -> FloatArray:
    """The candidates RNet keeps, corrected and square again, float32 (M, 4)."""
    boxes_N4, windows_N4 = _drop_outside(photo_1CHW, boxes_N4)
    if not len(boxes_N4):
        return boxes_N4
    scores_N, shift_N4 = _run_in_chunks(photo_1CHW, windows_N4, rnet, side_px=_RNET_SIDE_PX)
    passed = np.flatnonzero(scores_N > threshold)
    passed = passed[suppress_by_union(boxes_N4[passed], scores_N[passed], iou_threshold=0.7)]
    return make_square(shift_boxes(boxes_N4[passed], shift_N4[passed], extra_px=1))


def _decide(photo_1CHW: Tensor, boxes_N4: FloatArray, onet: nn.Module, *, threshold: float) -> list[Face]:
    """The candidates ONet keeps, by falling score."""
    boxes_N4, windows_N4 = _drop_outside(photo_1CHW, boxes_N4)
    if not len(boxes_N4):
        return []
    scores_N, shift_N4, points_N10 = _run_in_chunks(photo_1CHW, windows_N4, onet, side_px=_ONET_SIDE_PX)
    passed = np.flatnonzero(scores_N > threshold)
    landmarks_M52 = place_points(boxes_N4[passed], points_N10[passed])
    boxes_M4 = shift_boxes(boxes_N4[passed], shift_N4[passed], extra_px=1)
    scores_M = scores_N[passed]
    kept = suppress_by_smaller(boxes_M4, scores_M, threshold=0.7)
    return [Face(box=boxes_M4[i], score=float(scores_M[i]), landmarks=landmarks_M52[i]) for i in kept]


def _drop_outside(photo_1CHW: Tensor, boxes_N4: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """The boxes that cover a pixel of the photo, and their windows."""
    height, width = photo_1CHW.shape[-2:]
    windows_N4 = windows_inside(boxes_N4, height=height, width=width)
    inside_N = (windows_N4[:, 2:] > windows_N4[:, :2]).all(axis=1)
    return boxes_N4[inside_N], windows_N4[inside_N]


def _run_in_chunks(
    photo_1CHW: Tensor, windows_N4: npt.NDArray[np.int64], net: nn.Module, *, side_px: int
) -> tuple[FloatArray, ...]:
    """A net's outputs for every window, computed for a bounded number of crops at a time."""

    def outputs() -> Iterator[list[FloatArray]]:
        for start in range(0, len(windows_N4), _CHUNK_CROPS):
            crops_NCHW = cut_crops(photo_1CHW, windows_N4[start : start + _CHUNK_CROPS], side_px=side_px)
            yield [output.cpu().numpy() for output in net(normalise(crops_NCHW))]

    return tuple(np.concatenate(column) for column in zip(*outputs(), strict=True))
