"""A picture that somebody asks with: decoded behind the wall, and its faces found, cut out and embedded."""

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.detection import DetectionSettings, PhotoFaces, find_in_photos
from models.encoder import Encoder
from models.photo import Photo, PhotoRefused, read_whole_photo
from store.errors import QueryError
from store.fingerprints import sha256_hex
from store.layout import open_store
from store.storage import Storage
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import face_input_of_row
from tasks.steps.photo_faces import load_nets, rows_of_faces
from tasks.steps.resolve_encoder import load_stored_encoder
from tasks.steps.wall import PhotoKilledError, run_once_behind_wall

__all__ = [
    "AskedPhoto",
    "Decode",
    "Find",
    "decode_asked",
    "embed_asked",
    "encoder_of",
    "find_asked",
    "read_asked_photo",
]

Row = dict[str, Any]
Decode = Callable[..., Photo]
"""Calls a function with its arguments, behind a wall: `run_once_behind_wall`, or a pool that is kept warm."""
Find = Callable[[Photo], PhotoFaces]
"""Gives the faces of one photo."""

_SHOWN_PX = 900


@dataclass(frozen=True)
class AskedPhoto:
    """A decoded photo and the faces that were found in it.

    Attributes:
        uri: what it is called.
        sha256: of its bytes.
        picture: the upright photo as a JPEG of at most 900 px, for showing.
        size: its full width and height in pixels, which boxes refer to.
        rows: a row a face, as FACES has it, by falling score; none where no face was found.
        tried: what the search tried, as the end of a sentence: sizes and turns.
        seconds: that decode and detect took.
    """

    uri: str
    sha256: str
    picture: bytes
    size: tuple[int, int]
    rows: tuple[Row, ...]
    tried: str
    seconds: dict[str, float]


def read_asked_photo(
    data: bytes, *, uri: str, device: str = "cpu", decode: Decode = run_once_behind_wall, find: Find | None = None
) -> AskedPhoto:
    """Decode a stranger's picture and find its faces.

    Args:
        data: the file; it may be damaged or hostile.
        uri: what to call it.
        device: of the detector.
        decode: runs the decoder in a process of its own.
        find: gives the faces of a photo as `find_in_photos` does; where it is given, `device` is not looked at.

    Raises:
        QueryError: the picture cannot be decoded; the message says why.
    """
    started = time.perf_counter()
    photo = decode_asked(data, uri=uri, decode=decode)
    decoded = time.perf_counter()
    asked = find_asked(photo, sha256=sha256_hex(data), uri=uri, device=device, find=find)
    return replace(asked, seconds={"decode": decoded - started, "detect": time.perf_counter() - decoded})


def decode_asked(data: bytes, *, uri: str, decode: Decode = run_once_behind_wall) -> Photo:
    """The photo as it is searched, with its pixels at full size.

    Raises:
        QueryError: it cannot be decoded; the message says why.
    """
    contract = Contract()
    try:
        return decode(read_whole_photo, data, limits=contract.limits, max_side_px=contract.detection.max_side_px)
    except PhotoRefused as refused:
        raise QueryError(f"{uri} cannot be asked with: {refused.reason}") from refused
    except PhotoKilledError as killed:
        raise QueryError(f"{uri} cannot be asked with: {killed}") from killed


def find_asked(photo: Photo, *, sha256: str, uri: str, device: str = "cpu", find: Find | None = None) -> AskedPhoto:
    """The faces of a decoded photo.

    Args:
        photo: as `decode_asked` gives it.
        sha256: of the bytes it was decoded from.
        uri: what to call it.
        device: of the detector.
        find: as `read_asked_photo` has it.
    """
    contract = Contract()
    found = (
        find_in_photos([photo], nets=load_nets(device), settings=contract.detection)[0] if find is None else find(photo)
    )
    pixels_HWC = photo.pixels if photo.full is None else photo.full
    rows = rows_of_faces({"photo_sha256": sha256, "uri": uri}, pixels_HWC, found, contract=contract)
    size = (photo.full_width, photo.full_height)
    return AskedPhoto(uri, sha256, _picture(photo.pixels), size, tuple(rows), _tried(size, contract.detection), {})


def embed_asked(rows: Sequence[Row], encoder: Encoder, *, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The faces' embeddings, float32 (N, D) of unit length.

    Args:
        rows: faces of one photo, at least one.
        encoder: the version's.
        size: the photo's full width and height.
    """
    return encoder.embed(np.stack([face_input_of_row(row, encoder.card, photo_size=size) for row in rows]))


def encoder_of(storage: Storage, encoder: str, *, device: str = "cpu") -> Encoder:
    """An encoder of the store, loaded once a process."""
    return _encoder(storage.uri, encoder, device)


@lru_cache(maxsize=2)
def _encoder(store: str, encoder: str, device: str) -> Encoder:
    return load_stored_encoder(open_store(store), encoder, device=device, threads=2)


def _tried(size: tuple[int, int], settings: DetectionSettings) -> str:
    shrunk = max(1.0, max(size) / settings.max_side_px)
    smallest = math.ceil(settings.cascade.min_face_px * shrunk)
    at = f", shrunk to {settings.max_side_px} for the search," if shrunk > 1 else ""
    turns = ", ".join(str(turn) for turn in settings.rotations)
    return (
        f"{size[0]} x {size[1]} pixels{at} searched upright and turned by {turns} degrees "
        f"for faces of at least {smallest} pixels"
    )


def _picture(pixels_HWC: npt.NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(pixels_HWC)
    image.thumbnail((_SHOWN_PX, _SHOWN_PX))
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=88)
    return sink.getvalue()
