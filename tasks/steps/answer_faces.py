"""Answer faces against an opened version: filters first, then the search, then what is shown of it. No Prefect, no photo read."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.encoder import Encoder
from models.same_person import Calibration, grade
from store.errors import ArtifactError, QueryError
from store.index_filter import Filter
from store.index_search import index_size
from store.storage import Storage
from store.versions import PublishedVersion
from tasks.steps.answer import Answer, AskedFace, Match, Person
from tasks.steps.asked_photo import AskedPhoto, embed_asked, encoder_of
from tasks.steps.calibrate_version import calibration_of
from tasks.steps.choose_matches import Found, choose_matches
from tasks.steps.face_in_shard import stored_crop, stored_size, stored_vector
from tasks.steps.filter_faces import allowed_faces
from tasks.steps.live_filter import live_forgotten
from tasks.steps.open_version import OpenVersion
from tasks.steps.query_options import AS_USUAL, QueryOptions

__all__ = ["answer_face", "answer_photo", "refuse_other_encoder"]

Row = dict[str, Any]


def answer_photo(
    storage: Storage,
    opened: OpenVersion,
    asked: AskedPhoto,
    *,
    options: QueryOptions = AS_USUAL,
    warnings: tuple[str, ...] = (),
    encoder: Encoder | None = None,
    device: str = "cpu",
) -> Answer:
    """The matches of each face of a photo, or of the one that `options.face` names.

    Args:
        storage: the store.
        opened: the version; `options.version` is not looked at.
        asked: as `read_asked_photo` gives it.
        options: how it is asked.
        warnings: what `open_version` said.
        encoder: the version's; loaded where it is not given.
        device: that it is then loaded for.

    Raises:
        QueryError: the photo shows no face, or not so many; the encoder is not the version's; a filter names what is not there.
    """
    refuse_other_encoder(opened.version, options.encoder)
    rows = _chosen(asked, options.face)
    started = time.perf_counter()
    encoder = encoder or encoder_of(storage, opened.version.manifest.encoder.id, device=device)
    queries_QD = embed_asked([row for _, row in rows], encoder, size=asked.size)
    embedded = time.perf_counter()
    allowed = allowed_faces(storage, opened, options, asked_sha256=asked.sha256)
    found = _search(storage, opened, queries_QD, allowed, options)
    seconds = {"embed": embedded - started, "search": time.perf_counter() - embedded}
    return Answer(
        version=opened.version.number,
        image=asked.uri,
        picture=asked.picture,
        size=asked.size,
        contract=opened.version.manifest.contract.id,
        faces=tuple(_face(row, number, matches) for (number, row), matches in zip(rows, found, strict=True)),
        revision=opened.version.manifest.revision,
        warnings=warnings,
        searched=_searched(opened, allowed),
        calibration=_summary(opened.version),
        seconds={name: round(s, 6) for name, s in (asked.seconds | seconds).items()},
    )


def answer_face(
    storage: Storage,
    opened: OpenVersion,
    face_id: int,
    *,
    options: QueryOptions = AS_USUAL,
    warnings: tuple[str, ...] = (),
) -> Answer:
    """The matches of a face that the version knows: its stored embedding is asked with, no net runs.

    The face itself comes first, unless `options.not_itself` takes its photo out of the search.

    Args:
        storage: the store.
        opened: the version; `options.version` is not looked at.
        face_id: the face.
        options: how it is asked.
        warnings: what `open_version` said.

    Raises:
        QueryError: the version has no such face, or somebody wished that it be forgotten.
        ArtifactError: its shard is not what the manifest says.
    """
    refuse_other_encoder(opened.version, options.encoder)
    known = opened.faces.get(face_id)
    if known is None or live_forgotten(storage).has_face(known):
        raise QueryError(
            f"version {opened.version.number} has no face {face_id}: take a face_id out of one of its answers"
        )
    started = time.perf_counter()
    manifest = opened.version.manifest
    if (crop := stored_crop(storage, manifest, known)) is None:
        raise ArtifactError(
            f"shard {known['shard']} does not hold face {face_id}, which version {opened.version.number} has in it"
        )
    vector_D, size = stored_vector(storage, manifest, known), stored_size(storage, manifest, known)
    allowed = allowed_faces(storage, opened, options, asked_sha256=known["photo_sha256"])
    (matches,) = _search(storage, opened, vector_D[None], allowed, options)
    return Answer(
        version=opened.version.number,
        image=known["uri"],
        picture=b"",
        size=size,
        contract=manifest.contract.id,
        faces=(_face({**known, "crop": crop}, 1, matches),),
        revision=manifest.revision,
        warnings=warnings,
        face_id=str(face_id),
        searched=_searched(opened, allowed),
        calibration=_summary(opened.version),
        seconds={"search": round(time.perf_counter() - started, 6)},
    )


def refuse_other_encoder(version: PublishedVersion, asked: str | None) -> None:
    """Refuse to ask with another encoder than the version's.

    Raises:
        QueryError: the message names both.
    """
    built_with = version.manifest.encoder
    if asked is not None and asked not in {built_with.id, built_with.name}:
        raise QueryError(
            f"encoder mismatch: the photo would be embedded by {asked}, version {version.number} was built with "
            f"{built_with.id}. Query with --encoder {built_with.id}, or rebuild"
        )


def _chosen(asked: AskedPhoto, face: int | None) -> list[tuple[int, Row]]:
    """The faces to answer, with their numbers in the photo."""
    numbered = list(enumerate(asked.rows, start=1))
    if not numbered:
        raise QueryError(f"no face was found in {asked.uri}: {asked.tried}")
    if face is None:
        return numbered
    if face > len(numbered):
        raise QueryError(f"{asked.uri} shows {len(numbered)} faces, there is no face {face}")
    return [numbered[face - 1]]


def _search(
    storage: Storage,
    opened: OpenVersion,
    queries_QD: npt.NDArray[np.float32],
    allowed: Filter | None,
    options: QueryOptions,
) -> list[tuple[Match, ...]]:
    calibration, searched = calibration_of(opened.version.manifest), _searched(opened, allowed)
    found = choose_matches(
        storage,
        opened,
        queries_QD,
        options=options,
        allowed=allowed,
        calibration=calibration,
        searched=searched,
    )
    return [_matches(opened.faces, matches, calibration, searched) for matches in found]


def _searched(opened: OpenVersion, allowed: Filter | None) -> int:
    return index_size(opened.index)[0] if allowed is None else allowed.count


def _summary(version: PublishedVersion) -> dict[str, Any] | None:
    calibration = calibration_of(version.manifest)
    return None if calibration is None else calibration.summary()


def _face(row: Mapping[str, Any], number: int, matches: Sequence[Match]) -> AskedFace:
    return AskedFace(
        box=_box(row),
        score=round(float(row["score"]), 4),
        rotation=int(row["rotation"] or 0),
        quality=_quality(row),
        crop=row["crop"],
        matches=tuple(matches),
        number=number,
        people=_people(matches),
    )


def _people(matches: Sequence[Match]) -> tuple[Person, ...]:
    of_label: dict[str, list[Match]] = {}
    for match in matches:
        if match.label:
            of_label.setdefault(match.label, []).append(match)
    return tuple(
        Person(label, found[0].cosine, found[0].same_person, tuple(match.face_id for match in found))
        for label, found in of_label.items()
    )


def _matches(
    faces: Mapping[int, Mapping[str, Any]], found: Sequence[Found], calibration: Calibration | None, searched: int
) -> tuple[Match, ...]:
    cosines = [max(-1.0, min(1.0, one.cosine)) for one in found]
    chances: Sequence[float | None] = [None] * len(found)
    strangers: Sequence[float | None] = chances
    if calibration is not None and found:
        chances = [round(float(p), 6) for p in calibration.same_person(cosines, searched=searched)]
        strangers = [float(f"{float(hits):.3g}") for hits in calibration.false_hits(cosines, searched=searched)]
    told = zip(found, cosines, chances, strangers, strict=True)
    return tuple(_match(faces, one, cosine, chance, hits) for one, cosine, chance, hits in told)


def _match(
    faces: Mapping[int, Mapping[str, Any]], found: Found, cosine: float, same_person: float | None, hits: float | None
) -> Match:
    row = faces[found.face_id]
    return Match(
        face_id=str(found.face_id),
        uri=row["uri"],
        uris=tuple(row["uris"] or [row["uri"]]),
        label=row["label"],
        box=_box(row),
        cosine=round(cosine, 6),
        same_person=same_person,
        rotation=int(row["rotation"] or 0),
        shard=row["shard"],
        grade=grade(same_person),
        false_hits=hits,
        quality=_quality(row),
        folded=tuple(faces[identity]["uri"] for identity in found.folded),
    )


def _box(row: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(round(float(side), 2) for side in row["box"])


def _quality(row: Mapping[str, Any]) -> float | None:
    return None if row["quality"] is None else round(float(row["quality"]), 4)
