"""Pairs of labelled faces of a version: who is taken, how people are halved, and the cosines of their pairs.

D dimensions of an embedding, L labelled faces.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.same_person import CELLS, LabelledPairs, count_cells
from tasks.steps.face_blocks import FaceBlocks
from tasks.steps.main_face import main_face

__all__ = ["LabelledFaces", "faces_of_people", "halves_of", "labelled_pairs"]

_MOST_FACES = (3_000, 30_000)  # of each half: a large gallery asks for false hits further out, and pays for it
_FACES_SHARE = 50
_PAIRS_A_PERSON = 20  # so that nobody with hundreds of photos is the measure of everybody
_SEED = 20_261_126
_CHUNK = 512

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LabelledFaces:
    """The main face of labelled photos.

    Attributes:
        ids_L: int64, (L,), face ids.
        emb_LD: float32, (L, D), unit length.
        label_L: str, (L,), who they are.
    """

    ids_L: npt.NDArray[np.int64]
    emb_LD: npt.NDArray[np.float32]
    label_L: npt.NDArray[np.str_]

    def several(self) -> int:
        """How many people have more than one face."""
        return int((np.unique(self.label_L, return_counts=True)[1] > 1).sum())


def halves_of(label_of: Mapping[str, int], *, gallery: int, seed: int = _SEED) -> tuple[frozenset[str], frozenset[str]]:
    """Two groups of people that share nobody, by a hash of their names, each with about as many faces as are looked at.

    Args:
        label_of: photos of each person.
        gallery: faces in the version, which say how many are worth looking at.
        seed: another one is another division.
    """
    most_faces = min(max(gallery // _FACES_SHARE, _MOST_FACES[0]), _MOST_FACES[1])
    halves: tuple[list[str], list[str]] = ([], [])
    faces = [0, 0]
    for person in sorted(label_of, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()):
        half = int(faces[1] < faces[0])
        if faces[half] < most_faces:
            halves[half].append(person)
            faces[half] += min(label_of[person], _PAIRS_A_PERSON)
    return frozenset(halves[0]), frozenset(halves[1])


def faces_of_people(
    people: Collection[str],
    *,
    faces: pa.Table,
    photos: pa.Table,
    opened: FaceBlocks,
) -> LabelledFaces:
    """The main face of each indexed photo of some people, at most 20 photos each, by rising photo hash.

    Args:
        people: their labels.
        faces: VERSION_FACES.
        photos: VERSION_PHOTOS.
        opened: the same faces with their vectors; only theirs are read.
    """
    theirs = pc.and_(
        pc.equal(photos["status"], "indexed"),
        pc.is_in(photos["label"], value_set=pa.array(sorted(people), pa.string())),
    )
    columns = ["photo_sha256", "label", "width", "height"]
    chosen = photos.filter(theirs).select(columns).sort_by("photo_sha256").to_pylist()
    taken: Counter[str] = Counter()
    kept: dict[str, dict[str, Any]] = {}
    for photo in chosen:
        if taken[photo["label"]] < _PAIRS_A_PERSON:
            taken[photo["label"]] += 1
            kept[photo["photo_sha256"]] = photo
    shown = faces.filter(pc.is_in(faces["photo_sha256"], value_set=pa.array(list(kept), pa.string())))
    of_photo: dict[str, list[dict[str, Any]]] = {}
    for face in shown.select(["face_id", "photo_sha256", "box", "score"]).to_pylist():
        of_photo.setdefault(face["photo_sha256"], []).append(face)
    ids, labels = [], []
    for sha256, its_faces in of_photo.items():
        photo = kept[sha256]
        ids.append(main_face(its_faces, photo_size=(photo["width"], photo["height"]))["face_id"])
        labels.append(photo["label"])
    ids_L = np.array(ids, np.int64)
    rows_L = np.searchsorted(opened.ids, ids_L)
    emb_LD = np.zeros((len(rows_L), opened.dimension), np.float32)
    order = np.argsort(rows_L)
    emb_LD[order] = opened.take(rows_L[order])
    return LabelledFaces(ids_L, emb_LD, np.array(labels, np.str_))


def labelled_pairs(labelled: LabelledFaces) -> LabelledPairs:
    """All pairs of labelled faces: of one person at most 20, chosen by a fixed seed, of two people all there are."""
    emb_LD = labelled.emb_LD
    people, person_L = np.unique(labelled.label_L, return_inverse=True)
    different = np.zeros(CELLS, np.int64)
    of_person: dict[int, list[npt.NDArray[np.floating[Any]]]] = {}
    for start in range(0, len(emb_LD), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(emb_LD)))
        cosines = emb_LD[rows] @ emb_LD[start:].T
        after = rows[:, None] < np.arange(start, len(emb_LD))
        alike = person_L[rows][:, None] == person_L[start:]
        different += count_cells(cosines[after & ~alike])
        for row, column in np.argwhere(after & alike):
            of_person.setdefault(int(person_L[rows[row]]), []).append(cosines[row, column])
    generator = np.random.default_rng(_SEED)
    same = [_some(np.array(of_person[person]), generator) for person in sorted(of_person)]
    return LabelledPairs(
        same=np.clip(np.concatenate([np.zeros(0), *same]), -1, 1),
        different=different,
        people=len(people),
        faces=len(labelled.label_L),
    )


def _some(cosines: Floats, generator: np.random.Generator) -> Floats:
    if len(cosines) <= _PAIRS_A_PERSON:
        return cosines
    return cosines[generator.choice(len(cosines), _PAIRS_A_PERSON, replace=False)]
