"""The cascade: PNet proposes at every scale, RNet refines, ONet decides and places the landmarks.

Shapes: N candidates, C = 3 channels, H rows, W columns; boxes are float32 (N, 4): x1, y1, x2, y2 in pixels of the
photo.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.mtcnn.boxes import make_square, place_points, shift_boxes, window_boxes, windows_inside
from models.mtcnn.layout import Layout, lay_out_pyramids
from models.mtcnn.nets import CascadeNets
from models.mtcnn.nms import suppress_by_smaller, suppress_by_union
from models.photo import require_rgb

__all__ = ["ALGORITHM_VERSION", "CascadeSettings", "Face", "detect_faces", "detect_faces_in_batch"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

ALGORITHM_VERSION = 2
"""Part of a store's contract: raised by a change after which some photo has other faces, boxes or landmarks."""

_MOST_LEVELS = 1000


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
    """Find every face in one photo: `detect_faces_in_batch` of one.

    Args:
        photo_HWC: uint8, (H, W, 3), RGB, upright (orientation is applied when the photo is read).
        nets: PNet, RNet and ONet on one device.
        settings: what to look for.

    Returns:
        Faces by falling score; no face is a normal answer.

    Raises:
        ValueError: the photo is not uint8 (H, W, 3); the message names the dtype and shape received.
    """
    return detect_faces_in_batch([photo_HWC], nets=nets, settings=settings)[0]


def detect_faces_in_batch(
    photos: Sequence[npt.NDArray[np.uint8]], *, nets: CascadeNets, settings: CascadeSettings
) -> list[list[Face]]:
    """Find every face in photos of any sizes with the three-stage MTCNN cascade, stage by stage in full batches.

    What is found in a photo does not depend on the others. Memory grows with the batch's pixels, 16 bytes each.

    Args:
        photos: uint8, (H, W, 3) each, RGB, upright.
        nets: PNet, RNet and ONet on one device.
        settings: min_face_px, the shortest side that can be found; thresholds, lowest score a stage, three values in
            [0, 1]; pyramid_factor in (0, 1).

    Returns:
        For each photo its faces by falling score: box, float32 (x1, y1, x2, y2) in pixels of the photo; score in
        [0, 1]; landmarks, float32 (5, 2), left eye, right eye, nose, left and right mouth corner as seen in the photo.

    Raises:
        ValueError: a photo is not uint8 (H, W, 3); the message names the dtype and shape received.

    References:
        Zhang, Zhang, Li, Qiao. Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional Networks.
        2016. arXiv:1604.02878. Inference only; weights and all constants from facenet-pytorch, whose boxes it finds,
        except that a candidate outside the photo is dropped.
    """
    for photo_HWC in photos:
        require_rgb(photo_HWC, where="detect_faces")
    if not photos:
        return []
    sizes_P2 = np.array([photo.shape[:2] for photo in photos], dtype=np.int64)
    loaded = nets.load(photos)
    candidates = _propose(loaded, sizes_P2, nets, settings=settings)
    candidates = _refine(loaded, candidates, sizes_P2, nets, threshold=settings.thresholds[1])
    return _decide(loaded, candidates, sizes_P2, nets, threshold=settings.thresholds[2])


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Boxes, float32 (N, 4), and the photo each lies in, int64 (N,), by rising photo."""

    photo: IntArray
    box: FloatArray

    def __getitem__(self, kept: Any) -> "_Candidates":
        return _Candidates(self.photo[kept], self.box[kept])


def _propose(loaded: Any, sizes_P2: IntArray, nets: CascadeNets, *, settings: CascadeSettings) -> _Candidates:
    """Square candidates from every level of every photo."""
    sizes = tuple((height, width) for height, width in sizes_P2.tolist())
    layout = lay_out_pyramids(sizes, min_face_px=settings.min_face_px, pyramid_factor=settings.pyramid_factor)
    if not layout.sheets:
        return _Candidates(np.empty(0, np.int64), np.empty((0, 4), np.float32))
    windows = _windows_over(settings.thresholds[0], loaded, layout, nets)
    boxes_N4 = window_boxes(windows.cell, scale=windows.scale)
    levels_N = windows.photo * _MOST_LEVELS + windows.level
    kept = suppress_by_union(boxes_N4, windows.score, levels_N, iou_threshold=0.5, by=nets.survivors)
    boxes_M4, scores_M, photo_M = boxes_N4[kept], windows.score[kept], windows.photo[kept]
    kept = kept[suppress_by_union(boxes_M4, scores_M, photo_M, iou_threshold=0.7, by=nets.survivors)]
    return _Candidates(windows.photo[kept], make_square(shift_boxes(boxes_N4[kept], windows.shift[kept], extra_px=0)))


class _Windows(NamedTuple):
    """PNet's windows that pass: photo and level (N,), cell (N, 2) row and column, scale (N,), score (N,), shift (N, 4).

    They stand by photo, level, row and column: of equal scores the first one stays.
    """

    photo: IntArray
    level: IntArray
    cell: IntArray
    scale: FloatArray
    score: FloatArray
    shift: FloatArray


def _windows_over(threshold: float, loaded: Any, layout: Layout, nets: CascadeNets) -> _Windows:
    cells, places = nets.propose(loaded, layout, threshold=threshold), layout.places
    passed = np.flatnonzero(cells.score >= threshold)
    place = cells.place[passed]
    photo, level = places.photo[place], places.level[place]
    row, column = cells.row[passed] + places.first_row[place], cells.column[passed] + places.first_column[place]
    order = np.lexsort((column, row, level, photo))
    cell_N2 = np.stack([row, column], axis=1)
    windows = photo, level, cell_N2, layout.scales[place], cells.score[passed], cells.shift[passed]
    return _Windows(*[of_each[order] for of_each in windows])  # type: ignore[arg-type]


def _refine(
    loaded: Any, candidates: _Candidates, sizes_P2: IntArray, nets: CascadeNets, *, threshold: float
) -> _Candidates:
    """The candidates RNet keeps, corrected and square again."""
    candidates, windows_N4 = _drop_outside(candidates, sizes_P2)
    if not len(windows_N4):
        return candidates
    scores_N, shift_N4 = nets.refine(loaded, candidates.photo, windows_N4)
    passed = np.flatnonzero(scores_N > threshold)
    candidates = candidates[passed]
    kept = suppress_by_union(candidates.box, scores_N[passed], candidates.photo, iou_threshold=0.7, by=nets.survivors)
    boxes_M4 = make_square(shift_boxes(candidates.box[kept], shift_N4[passed[kept]], extra_px=1))
    return _Candidates(candidates.photo[kept], boxes_M4)


def _decide(
    loaded: Any, candidates: _Candidates, sizes_P2: IntArray, nets: CascadeNets, *, threshold: float
) -> list[list[Face]]:
    """The faces of each photo: the candidates ONet keeps, by falling score."""
    faces: list[list[Face]] = [[] for _ in sizes_P2]
    candidates, windows_N4 = _drop_outside(candidates, sizes_P2)
    if not len(windows_N4):
        return faces
    scores_N, shift_N4, points_N10 = nets.decide(loaded, candidates.photo, windows_N4)
    passed = np.flatnonzero(scores_N > threshold)
    photo_M, scores_M = candidates.photo[passed], scores_N[passed]
    landmarks_M52 = place_points(candidates.box[passed], points_N10[passed])
    boxes_M4 = shift_boxes(candidates.box[passed], shift_N4[passed], extra_px=1)
    for i in suppress_by_smaller(boxes_M4, scores_M, photo_M, threshold=0.7, by=nets.survivors):
        faces[photo_M[i]].append(Face(box=boxes_M4[i], score=float(scores_M[i]), landmarks=landmarks_M52[i]))
    return faces


def _drop_outside(candidates: _Candidates, sizes_P2: IntArray) -> tuple[_Candidates, IntArray]:
    """The candidates that cover a pixel of their photo, and their windows."""
    windows_N4 = windows_inside(candidates.box, sizes_N2=sizes_P2[candidates.photo])
    inside_N = (windows_N4[:, 2:] > windows_N4[:, :2]).all(axis=1)
    return candidates[inside_N], windows_N4[inside_N]
