"""A known face and the photo it is in, for whoever may look: named by the face's id, and by nothing else."""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from models.photo import Photo, PhotoRefused
from store.errors import ArtifactError, LookalikeError
from store.fingerprints import sha256_hex
from store.source_lists import LIST_SUFFIXES
from store.sources import read_uri
from store.storage import Storage, decode_path, is_local
from tasks.steps.contract import Contract
from tasks.steps.face_in_shard import stored_crop
from tasks.steps.live_filter import live_forgotten
from tasks.steps.open_version import OpenVersion
from tasks.steps.wall import PhotoKilledError

__all__ = [
    "NotShownError",
    "OriginalPhoto",
    "face_thumbnail",
    "known_face",
    "original_photo",
    "photo_name",
    "upright_jpeg",
    "upright_middle",
]

Row = dict[str, Any]
_JPEG_QUALITY = 85
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


class NotShownError(LookalikeError):
    """A face or a photo is not there to be shown; the message says why, and names no path."""


@dataclass(frozen=True)
class OriginalPhoto:
    """A photo as it lies in its source.

    Attributes:
        data: its bytes, which are those that were indexed.
        media_type: found from them.
    """

    data: bytes
    media_type: str


def known_face(storage: Storage, opened: OpenVersion, face_id: int) -> Row:
    """The version's row of a face.

    Raises:
        NotShownError: the version has no such face, or it was forgotten; which of the two is not said.
    """
    row = opened.faces.get(face_id)
    if row is None or live_forgotten(storage).has_face(row):
        raise NotShownError(f"version {opened.version.number} has no face {face_id}")
    return dict(row)


def face_thumbnail(storage: Storage, opened: OpenVersion, face_id: int, *, side_px: int) -> bytes:
    """The middle of a face's stored crop, upright, as a JPEG of at most `side_px`.

    Raises:
        NotShownError: there is no such face.
        ArtifactError: its shard is not what the manifest says.
    """
    row = known_face(storage, opened, face_id)
    return upright_middle(_stored_crop(storage, opened, row), int(row["rotation"] or 0), side_px=side_px)


def upright_middle(crop: bytes, rotation: int, *, side_px: int) -> bytes:
    """The middle of a crop, turned so that its face is upright, as a JPEG of at most `side_px`.

    Args:
        crop: a JPEG that was made here.
        rotation: degrees counter-clockwise.
        side_px: of its sides.
    """
    with Image.open(io.BytesIO(crop), formats=("JPEG",)) as image:
        side = image.width
        middle = image.crop((side // 8, side // 8, side - side // 8, side - side // 8))
    middle.thumbnail((side_px, side_px))
    return _jpeg(middle.rotate(rotation, expand=True))


def original_photo(storage: Storage, opened: OpenVersion, face_id: int) -> OriginalPhoto:
    """The photo that a face is in.

    It is read from where the version says, if that lies inside the version's sources with every link followed, and given away only
    if its bytes are the very ones that were indexed: whatever a path has been made to lead to meanwhile, nothing else comes out.
    Photos that were indexed from the web are not fetched again.

    Raises:
        NotShownError: there is no such face, or its photo cannot be shown.
    """
    row, limits = known_face(storage, opened, face_id), Contract().limits
    for uri in row["uris"] or [row["uri"]]:
        if not _lies_inside(uri, opened.version.manifest.sources):
            continue
        try:
            data = read_uri(uri, max_bytes=limits.max_bytes)
        except (OSError, LookalikeError):
            continue
        if sha256_hex(data) == row["photo_sha256"]:
            return OriginalPhoto(data, _media_type(data))
    raise NotShownError("the photo is not where it was when it was indexed, or has changed since; its faces are kept")


def upright_jpeg(
    original: OriginalPhoto, *, side_px: int, decode: Callable[..., Photo]
) -> tuple[bytes, tuple[int, int]]:
    """A photo for showing: upright, in sRGB, at most `side_px` long, with no metadata; and its full width and height.

    Args:
        original: the photo.
        side_px: of the longer side.
        decode: as `DecodingApart.read` is.

    Raises:
        NotShownError: it cannot be decoded any more.
    """
    try:
        photo = decode(original.data, limits=Contract().limits, max_side_px=side_px)
    except (PhotoRefused, PhotoKilledError) as error:
        raise NotShownError(f"the photo cannot be shown: {error}") from error
    return _jpeg(Image.fromarray(photo.pixels)), (photo.full_width, photo.full_height)


def photo_name(uri: str, sources: Sequence[str]) -> str:
    """What to call a photo: its path below the source it came from, or the last part of its name; never the whole path."""
    below = [source for source in sources if uri.startswith(source.rstrip("/") + "/")]
    if below:
        return uri[len(max(below, key=len).rstrip("/")) + 1 :]
    return uri.rstrip("/").rpartition("/")[2] or uri


def _lies_inside(uri: str, sources: Sequence[str]) -> bool:
    if is_local(uri):
        path = decode_path(uri)
        real = os.path.realpath(path)
        for source in sources:
            if not is_local(source):
                continue
            if source.endswith(LIST_SUFFIXES):
                if real == os.path.abspath(path):  # a list names its photos one by one
                    return True
            elif real.startswith(os.path.realpath(decode_path(_root(source))).rstrip("/") + "/"):
                return True
        return False
    if not uri.startswith("s3://") or {".", ".."} & set(uri.split("/")):
        return False
    return any(
        uri == source or uri.startswith(_root(source).rstrip("/") + "/") or source.endswith(LIST_SUFFIXES)
        for source in sources
    )


def _root(source: str) -> str:
    """The folder that a source lies under: itself, or what stands before the first wildcard of a glob."""
    if is_local(source) and os.path.lexists(decode_path(source)):
        return source
    at = min((source.index(c) for c in "*?[" if c in source), default=len(source))
    return source if at == len(source) else source[:at].rpartition("/")[0]


def _stored_crop(storage: Storage, opened: OpenVersion, row: Row) -> bytes:
    try:
        crop = stored_crop(storage, opened.version.manifest, row)
    except ArtifactError as error:  # somebody in the shard was forgotten a moment ago, and it was rewritten
        raise NotShownError(f"the shard of face {row['face_id']} is being rewritten; ask again") from error
    if crop is None:
        raise NotShownError(f"version {opened.version.number} has no face {row['face_id']}")
    return crop


def _media_type(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return "image/avif" if data[8:12] in {b"avif", b"avis"} else "image/heic"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "application/octet-stream")


def _jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.convert("RGB").save(sink, "JPEG", quality=_JPEG_QUALITY)
    return sink.getvalue()
