"""Ask a version who is in a photo: for each face in it, the most similar faces known."""

import io
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from models.detection import find_in_photos
from models.photo import PhotoRefused, full_pixels, read_photo
from store.errors import QueryError
from store.fingerprints import sha256_hex
from store.layout import open_store
from store.shards import read_faces
from store.sources import read_asked
from store.storage import normalise_uri
from store.versions import PublishedVersion, read_version
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import face_input_of_row
from tasks.steps.live_filter import live_forgotten, search_known
from tasks.steps.open_version import OpenVersion, open_version
from tasks.steps.photo_faces import load_nets, rows_of_faces
from tasks.steps.resolve_encoder import load_stored_encoder
from tasks.steps.wall import PhotoKilledError, run_once_behind_wall

__all__ = ["Answer", "AskedFace", "Match", "query_photo", "read_crops"]

Row = dict[str, Any]
T = TypeVar("T")
_SHOWN_PX = 900


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
        same_person: probability in [0, 1]; None while the version is not calibrated.
        rotation: degrees counter-clockwise by which that photo was turned before the face was found.
        shard: that holds its crop.
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


@dataclass(frozen=True)
class AskedFace:
    """A face of the photo asked with, and its matches by falling cosine.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the upright photo.
        score: the detector's.
        rotation: degrees counter-clockwise by which the photo was turned before the face was found.
        quality: in [0, 1].
        crop: JPEG bytes.
        matches: at most k.
    """

    box: tuple[float, ...]
    score: float
    rotation: int
    quality: float | None
    crop: bytes
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class Answer:
    """What a version answers to one photo.

    Attributes:
        version: that answered.
        image: the photo's uri.
        picture: the upright photo as a JPEG of at most 900 px, for showing.
        size: its full width and height in pixels, which boxes refer to.
        contract: of the shards that the matches' crops stand in.
        faces: by falling detection score.
        revision: of the version; raised when somebody was forgotten.
        warnings: a sentence for each version that should have answered and was refused.
    """

    version: int
    image: str
    picture: bytes
    size: tuple[int, int]
    contract: str
    faces: tuple[AskedFace, ...]
    revision: int = 0
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The answer without pixels, as the command prints it."""
        return {
            "version": self.version,
            "revision": self.revision,
            "warnings": list(self.warnings),
            "image": self.image,
            "faces": [
                {
                    "box": list(face.box),
                    "score": face.score,
                    "rotation": face.rotation,
                    "quality": face.quality,
                    "matches": [{k: v for k, v in asdict(m).items() if k != "shard"} for m in face.matches],
                }
                for face in self.faces
            ],
        }


def query_photo(
    image: str, *, store: str, k: int = 10, version: int | None = None, encoder: str | None = None, device: str = "cpu"
) -> Answer:
    """Find the k most similar known faces of each face in a photo.

    Args:
        image: a path, or a url that fsspec opens.
        store: the store's uri.
        k: matches a face, at least 1.
        version: the version to ask; None asks CURRENT, or the newest before it that is not damaged.
        encoder: an id that the version must have been built with; None takes the version's own.
        device: of the nets.

    Raises:
        QueryError: the picture is missing, is not an image, shows no face, or the encoder is not the version's.
        VersionError: there is no such version.
        ArtifactError: the version asked for is damaged, or CURRENT is and so are all before it.
    """
    if k < 1:
        raise QueryError(f"k is {k}: ask for at least 1 match")
    storage = open_store(store)
    opened, refused = open_version(storage, version)
    _refuse_other_encoder(opened.version, encoder)
    uri = normalise_uri(image)
    contract = Contract()
    data = read_asked(image, max_bytes=contract.limits.max_bytes)
    photo = _decoded(read_photo, data, uri=uri, limits=contract.limits, max_side_px=contract.detection.max_side_px)
    found = find_in_photos([photo], nets=load_nets(device), settings=contract.detection)[0]
    size = (photo.full_width, photo.full_height)
    if not found.faces:
        smallest = contract.detection.cascade.min_face_px * max(1.0, max(size) / contract.detection.max_side_px)
        raise QueryError(
            f"no face was found in {uri} ({size[0]} x {size[1]} pixels): "
            f"give a photo with a face of at least {math.ceil(smallest)} pixels"
        )
    pixels = (
        photo.full if photo.full is not None else _decoded(full_pixels, photo, data, uri=uri, limits=contract.limits)
    )
    rows = rows_of_faces({"photo_sha256": sha256_hex(data), "uri": uri}, pixels, found, contract=contract)
    net = _encoder(storage.uri, opened.version.manifest.encoder.id, device)
    inputs = np.stack([face_input_of_row(row, net.card, photo_size=size) for row in rows])
    known = search_known(storage, opened.index, opened.faces, net.embed(inputs), k=k, settings=opened.settings)
    faces = tuple(
        AskedFace(
            box=tuple(round(float(side), 2) for side in row["box"]),
            score=round(float(row["score"]), 4),
            rotation=row["rotation"],
            quality=None if row["quality"] is None else round(float(row["quality"]), 4),
            crop=row["crop"],
            matches=tuple(_match(opened, i, c) for i, c in known[n]),
        )
        for n, row in enumerate(rows)
    )
    return Answer(
        version=opened.version.number,
        image=uri,
        picture=_picture(photo.pixels),
        size=size,
        contract=opened.version.manifest.contract.id,
        faces=faces,
        revision=opened.version.manifest.revision,
        warnings=refused,
    )


def _decoded(decode: Callable[..., T], *args: Any, uri: str, **kwargs: Any) -> T:
    """Decode a stranger's photo in a process of its own."""
    try:
        return run_once_behind_wall(decode, *args, **kwargs)
    except PhotoRefused as refused:
        raise QueryError(f"{uri} cannot be asked with: {refused.reason}") from refused
    except PhotoKilledError as killed:
        raise QueryError(f"{uri} cannot be asked with: {killed}") from killed


def read_crops(answer: Answer, *, store: str) -> dict[str, bytes]:
    """The stored crops of every match in an answer: JPEG bytes by face_id; none of those forgotten since.

    Raises:
        ArtifactError: a shard is not what the version's manifest says.
    """
    storage = open_store(store)
    recorded = {shard.name: shard.faces_sha256 for shard in read_version(storage, answer.version).manifest.shards}
    forgotten = live_forgotten(storage)
    wanted: dict[str, set[int]] = {}
    for face in answer.faces:
        for match in face.matches:
            wanted.setdefault(match.shard, set()).add(int(match.face_id))
    crops: dict[str, bytes] = {}
    for shard, ids in wanted.items():
        if shard not in recorded:  # somebody in it was forgotten since
            continue
        columns = ["face_id", "photo_sha256", "box", "crop"]
        faces = read_faces(storage, contract=answer.contract, shard=shard, columns=columns, sha256=recorded[shard])
        for row in faces.to_pylist():
            if row["face_id"] in ids and not forgotten.has_face(row):
                crops[str(row["face_id"])] = row["crop"]
    return crops


@lru_cache(maxsize=2)
def _encoder(store: str, encoder: str, device: str) -> Any:
    return load_stored_encoder(open_store(store), encoder, device=device, threads=2)


def _refuse_other_encoder(version: PublishedVersion, asked: str | None) -> None:
    built_with = version.manifest.encoder
    if asked is not None and asked not in {built_with.id, built_with.name}:
        raise QueryError(
            f"encoder mismatch: the photo would be embedded by {asked}, version {version.number} was built with "
            f"{built_with.id}. Query with --encoder {built_with.id}, or rebuild"
        )


def _match(opened: OpenVersion, identity: int, cosine: float) -> Match:
    row = opened.faces[identity]
    return Match(
        face_id=str(identity),
        uri=row["uri"],
        uris=tuple(row["uris"] or [row["uri"]]),
        label=row["label"],
        box=tuple(round(float(side), 2) for side in row["box"]),
        cosine=round(max(-1.0, min(1.0, cosine)), 6),
        same_person=None,
        rotation=int(row["rotation"] or 0),
        shard=row["shard"],
    )


def _picture(pixels_HWC: Any) -> bytes:
    image = Image.fromarray(pixels_HWC)
    image.thumbnail((_SHOWN_PX, _SHOWN_PX))
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=88)
    return sink.getvalue()
