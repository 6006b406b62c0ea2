"""Turn a version's cosines into probabilities: fitted on its own labels where they suffice, else as its encoder's card says."""

import contextlib
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from models.card import EncoderCard, parse_card
from models.pairs import split_for_training
from models.same_person import Calibration, calibrate
from store.encoders import read_card
from store.errors import EncoderUnknownError
from store.manifest import Manifest
from store.storage import Storage
from tasks.steps.face_blocks import FaceBlocks
from tasks.steps.labelled_pairs import faces_of_people, halves_of, labelled_pairs

__all__ = ["LEAST_CLAIM", "LEAST_PAIRS", "LEAST_PEOPLE", "calibrate_version", "calibration_of"]

LEAST_PEOPLE = 20
"""People with several faces that it takes to calibrate by labels: half to fit on, half to try it on."""

LEAST_PAIRS = 100
"""Pairs of one person that each half must have."""

LEAST_CLAIM = 0.7
"""Probability that labels must bear out for the best of matches among all of the version's faces.

Few labels hold few pairs of two people, and those bear out no high ratio. Fitted on fewer, it claims far too little; on LFW's View 1,
250 people reach it and 125 do not: answers are off by 0.020 and 0.045 (`benchmarks/calibration.py`).
"""


def calibrate_version(
    storage: Storage,
    manifest: Manifest,
    *,
    faces: pa.Table,
    photos: pa.Table,
    opened: FaceBlocks,
) -> dict[str, Any] | None:
    """What the manifest says of the version's calibration; None where there are neither enough labels nor a card's.

    Args:
        storage: the store, which has the encoder's card.
        manifest: of the version.
        faces: VERSION_FACES.
        photos: VERSION_PHOTOS.
        opened: the same faces with their vectors.

    Raises:
        EncoderUnknownError: the card's calibration cannot be read.
    """
    card = parse_card(read_card(storage, manifest.encoder.id), where=f"encoder {manifest.encoder.id}")
    label_of = _labels(photos, without=_learnt_from(card, photos))
    halves = [
        faces_of_people(half, faces=faces, photos=photos, opened=opened)
        for half in halves_of(label_of, gallery=manifest.faces)
    ]
    pairs = [labelled_pairs(half) for half in halves]
    if sum(half.several() for half in halves) >= LEAST_PEOPLE and all(len(p.same) >= LEAST_PAIRS for p in pairs):
        fitted = calibrate(*pairs, faces_a_person=sum(label_of.values()) / len(label_of))
        if fitted.most(searched=manifest.faces) >= LEAST_CLAIM:
            return fitted.model_dump(mode="json")
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


def _learnt_from(card: EncoderCard, photos: pa.Table) -> frozenset[str]:
    """The people that a trained encoder learnt from, by the same division as its training's: they would flatter it."""
    settings = (card.training or {}).get("settings")
    if not isinstance(settings, dict) or not isinstance(settings.get("seed"), int):
        return frozenset()
    try:
        return frozenset(split_for_training(_indexed_labels(photos).to_pylist(), seed=settings["seed"]).train)
    except ValueError:  # too few people to train on are too few to calibrate by
        return frozenset()


def _labels(photos: pa.Table, *, without: frozenset[str]) -> Counter[str]:
    """How many indexed photos each person has."""
    counted = _indexed_labels(photos).value_counts().to_pylist()
    return Counter({row["values"]: row["counts"] for row in counted if row["values"] not in without})


def _indexed_labels(photos: pa.Table) -> pa.ChunkedArray:
    return photos["label"].filter(pc.equal(photos["status"], "indexed")).drop_null()
