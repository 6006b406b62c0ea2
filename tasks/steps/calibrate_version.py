"""Turn a version's cosines into probabilities: fitted on its own labels where they suffice, else as its encoder's card says.

N faces, D dimensions of an embedding, L labelled faces.
"""

import contextlib
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from models.card import EncoderCard, parse_card
from models.pairs import split_for_training
from models.same_person import CELLS, Calibration, LabelledPairs, calibrate, count_cells
from store.encoders import read_card
from store.errors import EncoderUnknownError
from store.manifest import Manifest
from store.storage import Storage
from tasks.steps.main_face import main_face

__all__ = ["LEAST_PAIRS", "LEAST_PEOPLE", "calibrate_version", "calibration_of", "labelled_pairs"]

LEAST_PEOPLE = 20
"""People with several faces that it takes to calibrate by labels: half to fit on, half to try it on."""

LEAST_PAIRS = 100
"""Pairs of one person that each half must have."""

_MOST_FACES = (3_000, 20_000)  # of each half: a large gallery asks for false hits further out, and pays for it
_FACES_SHARE = 50
_PAIRS_A_PERSON = 20  # so that nobody with hundreds of photos is the measure of everybody
_SEED = 20_261_126
_CHUNK = 512

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class _Labelled:
    """The main face of labelled photos: embeddings, float32 (L, D), and who they are."""

    emb_LD: npt.NDArray[np.float32]
    label_L: npt.NDArray[np.str_]


def calibrate_version(
    storage: Storage,
    manifest: Manifest,
    *,
    faces: pa.Table,
    photos: pa.Table,
    ids_N: npt.NDArray[np.int64],
    embeddings_ND: npt.NDArray[np.float32],
) -> dict[str, Any] | None:
    """What the manifest says of the version's calibration; None where there are neither enough labels nor a card's.

    Args:
        storage: the store, which has the encoder's card.
        manifest: of the version.
        faces: VERSION_FACES.
        photos: VERSION_PHOTOS.
        ids_N: int64, (N,), ascending.
        embeddings_ND: float32, (N, D), unit length, in that order.

    Raises:
        EncoderUnknownError: the card's calibration cannot be read.
    """
    card = parse_card(read_card(storage, manifest.encoder.id), where=f"encoder {manifest.encoder.id}")
    label_of = _labels(photos, without=_learnt_from(card, photos))
    halves = [
        _labelled(half, faces, photos, ids_N, embeddings_ND)
        for half in _halves(label_of, most_faces=_most_faces(manifest.faces))
    ]
    pairs = [labelled_pairs(half.emb_LD, half.label_L) for half in halves]
    if sum(_several(half) for half in halves) >= LEAST_PEOPLE and all(len(p.same) >= LEAST_PAIRS for p in pairs):
        return calibrate(*pairs, faces_a_person=sum(label_of.values()) / len(label_of)).model_dump(mode="json")
    if card.calibration is None:
        return None
    try:
        carried = Calibration.model_validate(card.calibration)
    except ValidationError as error:
        raise EncoderUnknownError(
            f"the calibration in the card of encoder {manifest.encoder.id} cannot be read: {error.errors()[0]['msg']} at "
            f"{'.'.join(str(part) for part in error.errors()[0]['loc'])}; take it out of the card, or make it anew"
        ) from error
    a_person = sum(label_of.values()) / len(label_of) if label_of else 1.0
    return carried.model_copy(update={"source": "card", "faces_a_person": a_person}).model_dump(mode="json")


def calibration_of(manifest: Manifest) -> Calibration | None:
    """A published version's calibration; None where it has none, or one of a kind that this reader does not know."""
    if manifest.calibration is None:
        return None
    with contextlib.suppress(ValidationError):
        return Calibration.model_validate(manifest.calibration)
    return None


def labelled_pairs(emb_LD: Floats, label_L: npt.NDArray[np.str_]) -> LabelledPairs:
    """All pairs of labelled faces: of one person at most 20, chosen by a fixed seed, of two people all there are.

    Args:
        emb_LD: floating, (L, D), unit length.
        label_L: str, (L,), who each face is.
    """
    people, person_L = np.unique(label_L, return_inverse=True)
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
        faces=len(label_L),
    )


def _some(cosines: Floats, generator: np.random.Generator) -> Floats:
    if len(cosines) <= _PAIRS_A_PERSON:
        return cosines
    return cosines[generator.choice(len(cosines), _PAIRS_A_PERSON, replace=False)]


def _learnt_from(card: EncoderCard, photos: pa.Table) -> frozenset[str]:
    """The people that a trained encoder learnt from, by the same division as its training's: they would flatter it."""
    settings = (card.training or {}).get("settings")
    labels = photos.filter(pc.equal(photos["status"], "indexed"))["label"].drop_null().to_pylist()
    if not isinstance(settings, dict) or not isinstance(settings.get("seed"), int):
        return frozenset()
    try:
        return frozenset(split_for_training(labels, seed=settings["seed"]).train)
    except ValueError:  # too few people to train on are too few to calibrate by
        return frozenset()


def _labels(photos: pa.Table, *, without: frozenset[str]) -> Counter[str]:
    """How many indexed photos each person has."""
    counted = photos.filter(pc.equal(photos["status"], "indexed"))["label"].drop_null().value_counts().to_pylist()
    return Counter({row["values"]: row["counts"] for row in counted if row["values"] not in without})


def _most_faces(gallery: int) -> int:
    return min(max(gallery // _FACES_SHARE, _MOST_FACES[0]), _MOST_FACES[1])


def _halves(label_of: Counter[str], *, most_faces: int) -> tuple[frozenset[str], frozenset[str]]:
    """Two groups of people that share nobody, by a hash of their names, each with about as many faces as are looked at."""
    halves: tuple[list[str], list[str]] = ([], [])
    faces = [0, 0]
    for person in sorted(label_of, key=lambda name: hashlib.sha256(f"{_SEED}:{name}".encode()).digest()):
        half = int(faces[1] < faces[0])
        if faces[half] < most_faces:
            halves[half].append(person)
            faces[half] += min(label_of[person], _PAIRS_A_PERSON)
    return frozenset(halves[0]), frozenset(halves[1])


def _labelled(
    people: frozenset[str],
    faces: pa.Table,
    photos: pa.Table,
    ids_N: npt.NDArray[np.int64],
    embeddings_ND: npt.NDArray[np.float32],
) -> _Labelled:
    """The main face of each indexed photo of some people, at most 20 photos each, by rising photo hash."""
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
    rows = np.searchsorted(ids_N, np.array(ids, np.int64))
    return _Labelled(embeddings_ND[rows], np.array(labels, np.str_))


def _several(half: _Labelled) -> int:
    return int((np.unique(half.label_L, return_counts=True)[1] > 1).sum())
