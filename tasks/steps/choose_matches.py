"""From the most similar faces to the matches that are shown: least scores, near-duplicates in one, at most n a person."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.crop import Crop, decode_crop
from models.same_person import Calibration
from models.same_shot import SAME_SHOT, shot_signature
from store.errors import QueryError
from store.index_filter import Filter
from store.shards import read_faces
from store.storage import Storage
from tasks.steps.live_filter import search_known
from tasks.steps.open_version import OpenVersion
from tasks.steps.query_options import QueryOptions

__all__ = ["Found", "choose_matches"]

Signature = npt.NDArray[np.float32]


@dataclass
class Found:
    """A face that is shown, with the near-duplicates that it stands for."""

    face_id: int
    cosine: float
    folded: list[int]


def choose_matches(
    storage: Storage,
    opened: OpenVersion,
    queries_QD: npt.NDArray[np.float32],
    *,
    options: QueryOptions,
    allowed: Filter | None,
    calibration: Calibration | None,
    searched: int,
) -> list[list[Found]]:
    """At most k faces a query, by falling cosine; the search goes on until there are k that may be shown, or no more faces.

    Args:
        storage: the store.
        opened: the version.
        queries_QD: float32, (Q, D), unit length.
        options: how it is asked.
        allowed: whom to search among; None for all.
        calibration: the version's, if it has one.
        searched: how many faces are searched.

    Raises:
        QueryError: a least probability is asked for, and the version is not calibrated.
    """
    least = _least_cosine(options, calibration, searched=searched)
    shots = _Shots(storage, opened) if options.fold else None
    asked = options.k
    while True:
        found = search_known(
            storage, opened.index, opened.faces, queries_QD, k=asked, settings=opened.settings, allowed=allowed
        )
        chosen = [_choose(one, opened.faces, least=least, options=options, shots=shots) for one in found]
        wanting = [
            f
            for f, c in zip(found, chosen, strict=True)
            if len(c) < options.k and len(f) == asked and f[-1][1] >= least
        ]
        if not wanting or asked >= searched:
            return chosen
        asked = min(2 * asked, searched)


def _least_cosine(options: QueryOptions, calibration: Calibration | None, *, searched: int) -> float:
    """The lowest cosine that may be shown; the probability never falls where the cosine rises, so a bisection finds it."""
    if options.min_same_person <= 0:
        return options.min_cosine
    if calibration is None:
        raise QueryError(
            "min_same_person cannot be asked of a version that is not calibrated: use min_cosine, or build from labelled photos"
        )
    low, high = -1.0, 1.0 + 1e-6
    for _ in range(40):
        middle = (low + high) / 2
        reached = float(calibration.same_person([middle], searched=searched)[0]) >= options.min_same_person
        low, high = (low, middle) if reached else (middle, high)
    return max(options.min_cosine, high)


def _choose(
    found: list[tuple[int, float]],
    faces: Mapping[int, Mapping[str, Any]],
    *,
    least: float,
    options: QueryOptions,
    shots: "_Shots | None",
) -> list[Found]:
    chosen: list[Found] = []
    of_person: Counter[str] = Counter()
    if shots is not None:
        shots.read([identity for identity, cosine in found if cosine >= least])
    for identity, cosine in found:
        if cosine < least:
            break
        if shots is not None and (first := next((c for c in chosen if shots.same(c.face_id, identity)), None)):
            first.folded.append(identity)
            continue
        label = faces[identity]["label"]
        if options.per_person is not None and label and of_person[label] >= options.per_person:
            continue
        if len(chosen) == options.k:
            continue  # further near-duplicates of those shown may follow
        of_person[label] += 1
        chosen.append(Found(identity, cosine, []))
    return chosen


class _Shots:
    """Signatures of known faces, read from their stored crops once a query."""

    _COLUMNS = ("face_id", "landmarks", "crop", "crop_origin", "crop_scale")

    def __init__(self, storage: Storage, opened: OpenVersion) -> None:
        self._storage, self._faces, self._manifest = storage, opened.faces, opened.version.manifest
        self._known: dict[int, Signature] = {}

    def read(self, ids: list[int]) -> None:
        wanted: dict[str, set[int]] = {}
        for identity in ids:
            if identity not in self._known:
                wanted.setdefault(self._faces[identity]["shard"], set()).add(identity)
        hashes = {shard.name: shard.faces_sha256 for shard in self._manifest.shards}
        for shard, some in wanted.items():
            contract, sha256 = self._manifest.contract.id, hashes[shard]
            table = read_faces(self._storage, contract=contract, shard=shard, columns=self._COLUMNS, sha256=sha256)
            for row in table.filter(np.isin(table["face_id"].to_numpy(), list(some))).to_pylist():
                self._known[row["face_id"]] = _signature(row)

    def same(self, one: int, other: int) -> bool:
        mine, theirs = self._known.get(one), self._known.get(other)
        return mine is not None and theirs is not None and float(mine @ theirs) >= SAME_SHOT


def _signature(row: Mapping[str, Any]) -> Signature:
    pixels_HWC = decode_crop(row["crop"])
    crop = Crop(
        pixels=pixels_HWC,
        origin=np.asarray(row["crop_origin"], dtype=np.float64),
        scale=float(row["crop_scale"]),
    )
    return shot_signature(pixels_HWC, crop.to_crop(np.asarray(row["landmarks"], dtype=np.float32).reshape(5, 2)))
