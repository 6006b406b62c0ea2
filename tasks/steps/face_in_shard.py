"""What a shard keeps of one known face: its crop, its embedding, its photo's size; no more of a file is read than that takes."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.layout import faces_path
from store.manifest import Manifest
from store.shards import read_faces, read_photos, read_vectors
from store.storage import Storage
from store.verified_files import verified_file

__all__ = ["stored_crop", "stored_size", "stored_vector"]

Row = Mapping[str, Any]


def stored_crop(storage: Storage, manifest: Manifest, row: Row) -> bytes | None:
    """A face's crop as a JPEG; None where the version's shard does not hold the face.

    Args:
        storage: the store.
        manifest: the version's, which says what the shard's bytes are.
        row: gives face_id and shard.

    Raises:
        ArtifactError: the shard is not what the manifest says.
    """
    shard, face_id = row["shard"], row["face_id"]
    recorded = next((one.faces_sha256 for one in manifest.shards if one.name == shard), None)
    if recorded is None:
        return None
    if storage.local:
        path = verified_file(storage, faces_path(manifest.contract.id, shard), sha256=recorded, size=0)
        return _from_file(str(path), face_id)
    return _of_shard(storage, manifest.contract.id, shard, recorded).get(face_id)


def stored_vector(storage: Storage, manifest: Manifest, row: Row) -> npt.NDArray[np.float32]:
    """A face's embedding by the version's encoder, float32 (D,) of unit length; arguments as above."""
    encoder = manifest.encoder
    ids_S, vectors_SD = read_vectors(storage, encoder=encoder.id, shard=row["shard"], dimension=encoder.dimension)
    vector_D: npt.NDArray[np.float32] = vectors_SD[int(np.flatnonzero(ids_S == row["face_id"])[0])].copy()
    return vector_D


def stored_size(storage: Storage, manifest: Manifest, row: Row) -> tuple[int, int]:
    """The width and height of the photo that a face is in, zeros where they are not known; `row` gives photo_sha256 too."""
    columns = ("photo_sha256", "width", "height")
    photos = read_photos(storage, contract=manifest.contract.id, shard=row["shard"], columns=columns)
    at = pc.index(photos.column("photo_sha256"), pa.scalar(row["photo_sha256"])).as_py()
    return photos.column("width")[at].as_py() or 0, photos.column("height")[at].as_py() or 0


def _from_file(path: str, face_id: int) -> bytes | None:
    """One crop of a checked file of this machine; no more of it is read than the group of rows that it stands in."""
    with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
        at = pc.index(file.read(columns=["face_id"]).column(0), pa.scalar(face_id, pa.int64())).as_py()
        if at < 0:
            return None
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if at < rows:
                crop: bytes = file.read_row_group(group, columns=["crop"]).column(0)[at].as_py()
                return crop
            at -= rows
    return None


@lru_cache(maxsize=4)
def _of_shard(storage: Storage, contract: str, shard: str, sha256: str) -> dict[int, bytes]:
    """The crops of a shard that lies elsewhere, which comes as a whole."""
    faces = read_faces(storage, contract=contract, shard=shard, columns=["face_id", "crop"], sha256=sha256)
    return dict(zip(faces.column("face_id").to_pylist(), faces.column("crop").to_pylist(), strict=True))
