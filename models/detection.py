"""Finding faces in photos as they come: of any size, and lying on any side.

Frames: faces are given in pixels of the photo at full size, upright by its EXIF data, before any further turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.mtcnn.cascade import CascadeSettings, Face, detect_faces_in_batch
from models.mtcnn.nets import CascadeNets
from models.photo import Photo
from models.rotation import turn, turn_boxes_back, turn_points_back

__all__ = ["DetectionSettings", "PhotoFaces", "find_in_photos", "find_on_any_side", "find_upright", "is_sure"]

UInt8Array = npt.NDArray[np.uint8]

_SIDEWAYS_AT_A_TIME = 8


@dataclass(frozen=True)
class DetectionSettings:
    """How photos are searched.

    Args:
        max_side_px: a photo whose longer side is longer is shrunk to it for the search, at least 64; its faces are cut
            from the photo at full size. The smallest face that can be found then grows along.
        rotations: degrees counter-clockwise by which a photo without a sure upright face is turned and searched again.
        sure_score: of a face that is surely seen upright, in [0, 1]. The detector also finds something in a third to a
            half of the photos that lie on their side, but hardly ever with this score, which nearly all upright faces
            reach.
        cascade: the detector's settings, in pixels of the photo as it is searched.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    max_side_px: int = 2000
    rotations: tuple[int, ...] = (90, 180, 270)
    sure_score: float = 0.995
    cascade: CascadeSettings = field(default_factory=CascadeSettings)

    def __post_init__(self) -> None:
        if self.max_side_px < 64:
            raise ValueError(f"max_side_px must be at least 64, got {self.max_side_px!r}")
        if not set(self.rotations) <= {90, 180, 270}:
            raise ValueError(f"rotations must be of 90, 180 and 270 degrees, got {self.rotations!r}")
        if not 0 <= self.sure_score <= 1:
            raise ValueError(f"sure_score must lie in [0, 1], got {self.sure_score!r}")


@dataclass(frozen=True)
class PhotoFaces:
    """A photo's faces by falling score, and the turn in degrees counter-clockwise after which they were found."""

    faces: list[Face]
    rotation: int


def find_in_photos(photos: Sequence[Photo], *, nets: CascadeNets, settings: DetectionSettings) -> list[PhotoFaces]:
    """Find every face of every photo, in full batches.

    A photo in which no face is surely upright is searched turned by each of the rotations. The turn that shows the face
    with the highest score is taken (of equal ones, the one that shows more face) if that face is sure, or if there is none
    upright.

    Args:
        photos: as `read_photo` gives them, at most max_side_px long.
        nets: PNet, RNet and ONet on one device.
        settings: what to look for.
    """
    upright = find_upright(photos, nets=nets, settings=settings)
    return find_on_any_side(photos, upright, nets=nets, settings=settings)


def find_upright(photos: Sequence[Photo], *, nets: CascadeNets, settings: DetectionSettings) -> list[PhotoFaces]:
    """The first half of `find_in_photos`: the faces of the photos as they stand, in pixels of the photos as they are searched."""
    found = detect_faces_in_batch([photo.pixels for photo in photos], nets=nets, settings=settings.cascade)
    return [PhotoFaces(faces, rotation=0) for faces in found]


def find_on_any_side(
    photos: Sequence[Photo], upright: Sequence[PhotoFaces], *, nets: CascadeNets, settings: DetectionSettings
) -> list[PhotoFaces]:
    """The second half: photos without a sure face are searched turned, and all faces are given in pixels of the full size.

    Args:
        photos: as `find_in_photos` has them.
        upright: as `find_upright` found them.
        nets: the same.
        settings: the same.
    """
    found = list(upright)
    unsure = [number for number, one in enumerate(upright) if not is_sure(one, settings)]
    for start in range(0, len(unsure), _SIDEWAYS_AT_A_TIME):
        numbers = unsure[start : start + _SIDEWAYS_AT_A_TIME]
        turned = _find_turned([photos[number].pixels for number in numbers], nets=nets, settings=settings)
        for number, best in zip(numbers, turned, strict=True):
            if _best_score(best.faces) >= settings.sure_score or not found[number].faces:
                found[number] = best
    return [
        PhotoFaces([_at_full_size(face, photo) for face in one.faces], one.rotation)
        for one, photo in zip(found, photos, strict=True)
    ]


def is_sure(found: PhotoFaces, settings: DetectionSettings) -> bool:
    """Whether a face is so sure that the photo need not be searched turned."""
    return _best_score(found.faces) >= settings.sure_score


def _find_turned(photos: Sequence[UInt8Array], *, nets: CascadeNets, settings: DetectionSettings) -> list[PhotoFaces]:
    """The best turn of each photo."""
    turns = [[turn(photo, rotation) for photo in photos] for rotation in settings.rotations]
    results = [PhotoFaces([], rotation=0)] * len(photos)
    for rotation, turned in zip(settings.rotations, turns, strict=True):
        every = detect_faces_in_batch(turned, nets=nets, settings=settings.cascade)
        for number, (faces, photo) in enumerate(zip(every, photos, strict=True)):
            if faces and (not results[number].faces or _conviction(faces) > _conviction(results[number].faces)):
                back = [_turned_back(face, rotation, photo) for face in faces]
                results[number] = PhotoFaces(back, rotation=rotation)
    return results


def _best_score(faces: list[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def _conviction(faces: list[Face]) -> tuple[float, float]:
    """The highest score, rounded so that another runtime comes to the same, and the area of all boxes."""
    sides = [np.maximum(face.box[2:] - face.box[:2], 0) for face in faces]
    return round(_best_score(faces), 3), float(sum(np.prod(side) for side in sides))


def _turned_back(face: Face, rotation: int, photo_HWC: UInt8Array) -> Face:
    height, width = photo_HWC.shape[:2]
    box = turn_boxes_back(face.box[None], rotation, height=height, width=width)[0]
    landmarks = turn_points_back(face.landmarks, rotation, height=height, width=width)
    return Face(box=box.astype(np.float32), score=face.score, landmarks=landmarks.astype(np.float32))


def _at_full_size(face: Face, photo: Photo) -> Face:
    """The face in pixels of the whole photo; landmarks count from pixels' centres, boxes from their corners."""
    if (photo.width, photo.height) == (photo.full_width, photo.full_height):
        return face
    scale_2 = np.array([photo.full_width / photo.width, photo.full_height / photo.height])
    box = face.box * np.tile(scale_2, 2)
    landmarks = (face.landmarks + 0.5) * scale_2 - 0.5
    return Face(box=box.astype(np.float32), score=face.score, landmarks=landmarks.astype(np.float32))
