"""Part of `train_lfw`: LFW's View 1 as crops, cut once and kept.

Who may be learnt from and who is asked is LFW's own division: peopleDevTrain.txt and peopleDevTest.txt share nobody.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.card import BoxMargin
from models.detection import DetectionSettings, find_in_photos
from models.face_input import make_face_input
from models.mtcnn.nets import load_cascade_nets
from models.photo import PhotoLimits, read_photo

__all__ = ["LfwFaces", "cut_faces", "read_people"]

_BATCH = 32
BOX_MARGIN = 0.3


@dataclass(frozen=True)
class LfwFaces:
    """A face a photo: crops, uint8 (N, P, P, 3), the person of each, the photo of each (as person/file), and what was lost.

    `no_face` counts photos without one, `missing` people of the lists without a photo here.
    """

    crops: npt.NDArray[np.uint8]
    labels: list[str]
    photos: list[str]
    no_face: int
    missing: int

    def of(self, people: set[str]) -> npt.NDArray[np.int64]:
        """The rows of some people."""
        return np.array([row for row, label in enumerate(self.labels) if label in people], np.int64)


def read_people(file: Path) -> set[str]:
    """The names in one of LFW's people files: a count, then a name and its number of photos a line."""
    return {line.split("\t")[0] for line in file.read_text().splitlines()[1:] if line.strip()}


def cut_faces(lfw: Path, people: set[str], *, side_px: int, work: Path, device: str = "cpu") -> LfwFaces:
    """The face nearest the centre of every photo of some people, cut by its box; from the last run where it is kept.

    Args:
        lfw: holds images/<person>/<person>_NNNN.jpg.
        people: whose photos.
        side_px: of the square crops.
        work: where crops are kept.
        device: of the detector.
    """
    there = sorted(person for person in people if (lfw / "images" / person).is_dir())
    paths = [path for person in there for path in sorted((lfw / "images" / person).glob("*.jpg"))]
    wanted = [f"{path.parent.name}/{path.name}" for path in paths]
    name = hashlib.sha256(json.dumps([side_px, BOX_MARGIN, wanted]).encode()).hexdigest()[:16]
    kept = work / f"faces-{side_px}px-{name}.npz"
    if not kept.exists():
        crops, found = _cut(paths, side_px=side_px, device=device)
        partial = kept.with_suffix(".partial.npz")
        np.savez(partial, crops=crops, found=found)
        partial.replace(kept)
    with np.load(kept, allow_pickle=False) as file:
        crops, found = file["crops"], file["found"]
    photos = [wanted[row] for row in found]
    labels = [photo.split("/")[0] for photo in photos]
    return LfwFaces(crops, labels, photos, no_face=len(wanted) - len(found), missing=len(people) - len(there))


def _cut(paths: Sequence[Path], *, side_px: int, device: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    nets, settings = load_cascade_nets(device), DetectionSettings()
    crops: list[npt.NDArray[np.uint8]] = []
    found: list[int] = []
    for start in range(0, len(paths), _BATCH):
        photos = [
            read_photo(path.read_bytes(), limits=PhotoLimits(), max_side_px=settings.max_side_px)
            for path in paths[start : start + _BATCH]
        ]
        for row, (photo, faces) in enumerate(
            zip(photos, find_in_photos(photos, nets=nets, settings=settings), strict=True), start=start
        ):
            if not faces.faces or photo.full is None:
                continue
            centre = np.array([photo.full_width, photo.full_height, photo.full_width, photo.full_height]) / 2
            offsets = [float(np.square((face.box - centre).reshape(2, 2).sum(axis=0)).sum()) for face in faces.faces]
            face = faces.faces[int(np.argmin(offsets))]
            crop = make_face_input(
                photo.full,
                face.box,
                face.landmarks,
                geometry=BoxMargin(box_margin=BOX_MARGIN),
                height=side_px,
                width=side_px,
                rotation=faces.rotation,
            )
            crops.append(crop)
            found.append(row)
    return np.stack(crops), np.array(found, np.int64)
