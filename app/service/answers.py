"""What the service sends: everything a page needs and nothing that stays inside: no vectors, no paths, no bytes of photos."""

import base64
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.service.asking import Asked
from tasks.steps.answer import AskedFace, Match
from tasks.steps.open_version import OpenVersion
from tasks.steps.show_face import Row, photo_name, upright_middle

__all__ = ["FaceDetails", "FoundFace", "FoundPerson", "QueryFace", "SearchAnswer", "VersionList", "VersionSummary"]

Box = Annotated[
    list[float], Field(min_length=4, max_length=4, description="x1, y1, x2, y2 in pixels of the upright photo")
]
FaceId = Annotated[
    str, Field(pattern=r"^[0-9]{1,19}$", description="a face's id, decimal digits", examples=["4611686018427387904"])
]
_CROP_PX = 192


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FoundFace(_Sent):
    """A known face that resembles the one asked about."""

    face_id: FaceId
    label: str | None = Field(description="the person's name, where the gallery has one")
    photo_name: str = Field(description="the photo's path below its source")
    more_photo_names: list[str] = Field(
        description="other photos of the same bytes, and near-duplicates that were folded into this one"
    )
    box: Box
    cosine: float = Field(ge=-1, le=1, description="how alike the two look to the encoder")
    same_person: float | None = Field(
        description="probability that it is the same person; null while the version is not calibrated"
    )
    grade: str = Field(description='that probability in words, or "uncalibrated"')
    false_hits: float | None = Field(
        description="faces of other people that are expected to score so high among those searched; null like same_person"
    )
    quality: float | None = Field(description="0 useless to 1 good")

    @classmethod
    def of(cls, match: Match, sources: list[str]) -> "FoundFace":
        """A match, with names in place of paths."""
        more = [photo_name(uri, sources) for uri in (*match.uris, *match.folded) if uri != match.uri]
        return cls(
            face_id=match.face_id,
            label=match.label,
            photo_name=photo_name(match.uri, sources),
            more_photo_names=more,
            box=list(match.box),
            cosine=match.cosine,
            same_person=match.same_person,
            grade=match.grade,
            false_hits=match.false_hits,
            quality=match.quality,
        )


class FoundPerson(_Sent):
    """A named person among the matches."""

    label: str
    cosine: float = Field(ge=-1, le=1, description="of their most similar face")
    same_person: float | None = Field(description="of that face; null while the version is not calibrated")
    face_ids: list[FaceId] = Field(description="of the matches that carry the name, most similar first")


class QueryFace(_Sent):
    """A face that was asked about, and the known faces that resemble it, most similar first."""

    number: int = Field(description="counted from 1 by falling score of the detector")
    face_id: FaceId | None = Field(
        description="its id, where the version knows this very face; a link by it shows this view again"
    )
    box: Box
    score: float = Field(description="the detector's, 0 to 1")
    rotation: int = Field(
        description="degrees counter-clockwise by which the photo was turned before the face was found"
    )
    quality: float | None
    crop: str = Field(description="the face as a data: url")
    matches: list[FoundFace] = Field(description="by falling cosine")
    people: list[FoundPerson] = Field(description="the matches that carry a name, by person, most similar first")

    @classmethod
    def of(cls, face: AskedFace, face_id: str | None, sources: list[str]) -> "QueryFace":
        """A face of an answer."""
        return cls(
            number=face.number,
            face_id=face_id,
            box=list(face.box),
            score=face.score,
            rotation=face.rotation,
            quality=face.quality,
            crop=_data_url(upright_middle(face.crop, face.rotation, side_px=_CROP_PX)),
            matches=[FoundFace.of(match, sources) for match in face.matches],
            people=[
                FoundPerson(label=p.label, cosine=p.cosine, same_person=p.same_person, face_ids=list(p.face_ids))
                for p in face.people
            ],
        )


class SearchAnswer(_Sent):
    """What one version answers."""

    version: int
    revision: int = Field(description="raised when somebody was forgotten")
    warnings: list[str] = Field(description="a sentence for each newer version that is damaged and did not answer")
    width: int = Field(
        description="of the upright photo, pixels, which boxes refer to; for a known face, of the photo it is from"
    )
    height: int = Field(description="likewise")
    picture: str | None = Field(description="the upright photo, small, as a data: url; where it was asked for")
    searched: int = Field(description="faces that passed the filters")
    calibrated: bool = Field(description="whether same_person is known")
    faces: list[QueryFace] = Field(description="one for each face of the photo, or the one that was asked about")
    seconds: dict[str, float] = Field(
        description="that decode, detect, embed and search took; of a known face search alone"
    )

    @classmethod
    def of(cls, asked: Asked, *, picture: bool) -> "SearchAnswer":
        """An answer; with the photo in it where `picture` says so."""
        answer, sources = asked.answer, asked.opened.version.manifest.sources
        return cls(
            version=answer.version,
            revision=answer.revision,
            warnings=list(answer.warnings),
            width=answer.size[0],
            height=answer.size[1],
            picture=_data_url(answer.picture) if picture and answer.picture else None,
            searched=answer.searched,
            calibrated=answer.calibration is not None,
            faces=[QueryFace.of(face, i, sources) for face, i in zip(answer.faces, asked.face_ids, strict=True)],
            seconds=answer.seconds,
        )


class FaceDetails(_Sent):
    """A known face."""

    face_id: FaceId
    version: int
    label: str | None
    photo_name: str
    box: Box
    score: float
    quality: float | None

    @classmethod
    def of(cls, row: Row, opened: OpenVersion) -> "FaceDetails":
        """A row of the version."""
        return cls(
            face_id=str(row["face_id"]),
            version=opened.version.number,
            label=row["label"],
            photo_name=photo_name(row["uri"], opened.version.manifest.sources),
            box=[round(float(side), 2) for side in row["box"]],
            score=round(float(row["score"]), 4),
            quality=None if row["quality"] is None else round(float(row["quality"]), 4),
        )


class VersionSummary(_Sent):
    """A published version."""

    version: int
    created_at: str
    faces: int
    photos: int
    encoder: str
    index: str
    current: bool = Field(description="whether it answers where no version is named")
    calibrated: bool
    sources: list[str] = Field(
        description="names of what it was built from, without paths; a filter names one by its place"
    )

    @classmethod
    def of(cls, opened_manifest: Any, number: int, *, current: bool) -> "VersionSummary":
        """A manifest in short."""
        return cls(
            version=number,
            created_at=opened_manifest.created_at,
            faces=opened_manifest.faces,
            photos=opened_manifest.photos,
            encoder=opened_manifest.encoder.name or opened_manifest.encoder.id,
            index=opened_manifest.index.key,
            current=current,
            calibrated=opened_manifest.calibration is not None,
            sources=[source.rstrip("/").rpartition("/")[2] or source for source in opened_manifest.sources],
        )


class VersionList(_Sent):
    """All published versions, newest first."""

    versions: list[VersionSummary]
    labels: list[str] = Field(description="names of people in the current version, for the filter; at most 5,000")
    may_name_addresses: bool = Field(description="whether you may ask with a photo by its https address")
    most_photo_bytes: int = Field(description="that a photo may have")
    signed_in_as: str | None = Field(description="the name of your token; null where none is asked for")
    trouble: str | None = Field(description="why a newer version does not answer, if so")


def _data_url(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
