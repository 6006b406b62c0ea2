"""Find and align the faces of one shard: photos in, rows and crops out."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from models.crop import cut_crop, encode_crop
from models.mtcnn.cascade import Face, detect_faces
from models.mtcnn.nets import CascadeNets, load_cascade_nets
from models.photo import Photo, PhotoRefused, read_photo
from models.quality import measure_quality
from store.errors import LookalikeError
from store.fingerprints import face_ids, sha256_hex
from store.layout import open_store
from store.refs import ArtifactRef
from store.schemas import FACES, LISTING, PHOTOS, from_parquet
from store.shards import commit_shard, find_shard
from store.sources import read_uri
from tasks.steps.contract import Contract

__all__ = ["FIND_FACES_VERSION", "FoundFaces", "find_faces", "load_nets", "rows_of_faces", "shard_of"]

FIND_FACES_VERSION = 1
"""Raised in the commit that changes what a shard holds."""

Row = dict[str, Any]


@dataclass(frozen=True)
class FoundFaces:
    """A shard after this step.

    Attributes:
        shard: its photos, committed.
        computed: False when it was there already.
    """

    shard: ArtifactRef
    computed: bool


def shard_of(ref: ArtifactRef) -> str:
    """The shard's name in a reference to any of its files."""
    return PurePosixPath(ref.uri).stem


def find_faces(request: ArtifactRef, *, store: str, contract: Contract, device: str = "cpu") -> FoundFaces:
    """Find every face of a shard's photos and commit the shard; nothing is done where it is committed.

    Args:
        request: LISTING of the shard's photos.
        store: its uri.
        contract: what faces are found by.
        device: of the nets.
    """
    storage = open_store(store, create=True)
    shard = shard_of(request)
    if (there := find_shard(storage, contract=contract.id, shard=shard)) is not None:
        return FoundFaces(shard=there, computed=False)
    data = storage.read(storage.path_of(request.uri), sha256=request.sha256)
    listed: list[Row] = from_parquet(data, LISTING, where=request.uri).to_pylist()
    nets = load_nets(device)
    photo_rows: list[Row] = []
    face_rows: list[Row] = []
    seen: dict[str, Row] = {}
    for row in listed:
        photo_row, faces = _rows_of_photo(row, nets=nets, contract=contract, seen=seen)
        photo_rows.append(photo_row)
        face_rows += faces
    if len(photo_rows) != request.rows:
        raise LookalikeError(f"shard {shard} lost photos: {request.rows} listed, {len(photo_rows)} rows")
    committed = commit_shard(
        storage,
        contract=contract.id,
        shard=shard,
        photos=pa.Table.from_pylist(photo_rows, schema=PHOTOS),
        faces=pa.Table.from_pylist(face_rows, schema=FACES),
    )
    return FoundFaces(shard=committed, computed=True)


@lru_cache(maxsize=1)
def load_nets(device: str) -> CascadeNets:
    """The detector's nets, loaded once a process."""
    return load_cascade_nets(device)


def _rows_of_photo(
    listed: Row, *, nets: CascadeNets, contract: Contract, seen: dict[str, Row]
) -> tuple[Row, list[Row]]:
    """The row of one photo and the rows of its faces; equal bytes met before in the shard give no faces again."""
    row: Row = {
        "uri": listed["uri"],
        "bytes": listed["size"],
        "etag": listed["etag"],
        "mtime_ns": listed["mtime_ns"],
        "num_faces": 0,
        "rotation_used": 0,
    }
    try:
        data = read_uri(str(listed["uri"]), max_bytes=contract.limits.max_bytes)
    except Exception as error:  # every backend has its own kinds; the photo is tried again by a later build
        return {**row, "status": "failed", "reason": f"cannot be read: {type(error).__name__}"}, []
    if len(data) <= contract.limits.max_bytes:  # otherwise these are not all its bytes
        row |= {"photo_sha256": sha256_hex(data), "bytes": len(data)}
    if row.get("photo_sha256") and (twin := seen.get(str(row["photo_sha256"]))) is not None:
        shared = ("width", "height", "exif_orientation", "rotation_used", "status", "reason", "num_faces")
        return row | {name: twin.get(name) for name in shared}, []
    try:
        photo = read_photo(data, limits=contract.limits)
    except PhotoRefused as refused:
        row |= {"status": refused.status, "reason": refused.reason}
        if row.get("photo_sha256"):
            seen[str(row["photo_sha256"])] = row
        return row, []
    faces = detect_faces(photo.pixels, nets=nets, settings=contract.cascade)
    row |= {
        "width": photo.width,
        "height": photo.height,
        "exif_orientation": photo.exif_orientation,
        "num_faces": len(faces),
        "status": "indexed" if faces else "no_face",
        "reason": None if faces else "no face was found",
    }
    seen[str(row["photo_sha256"])] = row
    return row, rows_of_faces(row, photo, faces, contract=contract)


def rows_of_faces(photo_row: Row, photo: Photo, faces: list[Face], *, contract: Contract) -> list[Row]:
    """FACES rows of one photo's faces, in their order; `photo_row` gives photo_sha256 and uri."""
    sha256 = str(photo_row["photo_sha256"])
    ids = face_ids(sha256, [face.box.tolist() for face in faces])
    rows = []
    for identity, face in zip(ids, faces, strict=True):
        crop = cut_crop(photo.pixels, face.box, settings=contract.crop)
        quality = measure_quality(photo.pixels, face.box, face.landmarks)
        rows.append(
            {
                "face_id": identity,
                "photo_sha256": sha256,
                "uri": photo_row["uri"],
                "box": face.box.tolist(),
                "landmarks": face.landmarks.reshape(-1).tolist(),
                "score": face.score,
                "face_px": quality.face_px,
                "sharpness": quality.sharpness,
                "brightness": quality.brightness,
                "frontality": quality.frontality,
                "crop": encode_crop(crop, settings=contract.crop),
                "crop_origin": crop.origin.tolist(),
                "crop_scale": crop.scale,
            }
        )
    return rows
