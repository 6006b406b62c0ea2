"""What a version answers to a photo, as it is shown, printed and sent."""

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Answer", "AskedFace", "Match", "Person"]


@dataclass(frozen=True)
class Match:
    """One known face that resembles the one asked for.

    Attributes:
        face_id: as decimal digits.
        uri: the photo it is in; `uris` lists every name of the same bytes.
        uris: all of them, sorted.
        label: the person's name, where the gallery has one.
        box: x1, y1, x2, y2 in pixels of that photo.
        cosine: in [-1, 1].
        same_person: probability in [0, 1] among the faces searched; None while the version is not calibrated.
        rotation: degrees counter-clockwise by which that photo was turned before the face was found.
        shard: that holds its crop.
        grade: `same_person` in words; "uncalibrated" where it is None.
        false_hits: how many faces of other people are expected to score so high among those searched; None while uncalibrated.
        quality: of the known face, in [0, 1]; None where it was not measured.
        folded: uris of near-duplicate photos that this match stands for.
    """

    face_id: str
    uri: str
    uris: tuple[str, ...]
    label: str | None
    box: tuple[float, ...]
    cosine: float
    same_person: float | None
    rotation: int
    shard: str
    grade: str = "uncalibrated"
    false_hits: float | None = None
    quality: float | None = None
    folded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Person:
    """The matches of one labelled person.

    Attributes:
        label: the name.
        cosine: of the most similar.
        same_person: of the most similar; None while uncalibrated.
        face_ids: by falling cosine, as decimal digits.
    """

    label: str
    cosine: float
    same_person: float | None
    face_ids: tuple[str, ...]


@dataclass(frozen=True)
class AskedFace:
    """A face that was asked about, and its matches by falling cosine.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the upright photo.
        score: the detector's.
        rotation: degrees counter-clockwise by which the photo was turned before the face was found.
        quality: in [0, 1].
        crop: JPEG bytes.
        matches: at most k.
        number: counted from 1 among all faces of the photo, by falling score; `--face` takes it.
        people: the labelled people among the matches, by falling cosine.
    """

    box: tuple[float, ...]
    score: float
    rotation: int
    quality: float | None
    crop: bytes
    matches: tuple[Match, ...]
    number: int = 1
    people: tuple[Person, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Without pixels."""
        return {
            "number": self.number,
            "box": list(self.box),
            "score": self.score,
            "rotation": self.rotation,
            "quality": self.quality,
            "matches": [{k: v for k, v in asdict(m).items() if k != "shard"} for m in self.matches],
            "people": [asdict(person) for person in self.people],
        }


@dataclass(frozen=True)
class Answer:
    """What a version answers to one photo, or to one face of its own.

    Attributes:
        version: that answered.
        image: the photo's uri.
        picture: the upright photo as a JPEG of at most 900 px, for showing; empty where a face of the gallery was asked about.
        size: its full width and height in pixels, which boxes refer to.
        contract: of the shards that the matches' crops stand in.
        faces: by falling detection score.
        revision: of the version; raised when somebody was forgotten.
        warnings: a sentence for each version that should have answered and was refused.
        face_id: of the gallery's face that was asked about, as decimal digits; None where a photo was.
        searched: faces that passed the filters.
        calibration: where the probabilities come from: source, method, ece; None while uncalibrated.
        seconds: that decode, detect, embed and search took, as far as they were done.
    """

    version: int
    image: str
    picture: bytes
    size: tuple[int, int]
    contract: str
    faces: tuple[AskedFace, ...]
    revision: int = 0
    warnings: tuple[str, ...] = ()
    face_id: str | None = None
    searched: int = 0
    calibration: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The answer without pixels, as the command prints it and the service sends it."""
        return {
            "version": self.version,
            "revision": self.revision,
            "warnings": list(self.warnings),
            "image": self.image,
            "face_id": self.face_id,
            "size": list(self.size),
            "searched": self.searched,
            "calibration": self.calibration,
            "faces": [face.as_json() for face in self.faces],
            "seconds": self.seconds,
        }
