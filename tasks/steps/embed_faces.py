"""Embed the stored crops of one shard with one encoder."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.card import EncoderCard
from models.crop import Crop, decode_crop
from models.cutting_threads import cutting_threads, in_threads
from models.encoder import Encoder
from models.face_input import make_face_input
from store.errors import LookalikeError
from store.layout import open_store
from store.refs import ArtifactRef
from store.schemas import embeddings_schema
from store.shards import commit_embeddings, find_embeddings, find_shard, read_faces, read_photos
from tasks.steps.find_faces import FoundFaces, shard_of
from tasks.steps.resolve_encoder import EncoderRef, load_stored_encoder

__all__ = ["EMBED_FACES_VERSION", "EmbeddedFaces", "embed_faces", "face_input_of_row"]

EMBED_FACES_VERSION = 1
"""Raised in the commit that changes what an embedding is."""

_BATCH = 64


@dataclass(frozen=True)
class EmbeddedFaces:
    """A shard's embeddings.

    Attributes:
        embeddings: the file.
        computed: False when it was there already.
    """

    embeddings: ArtifactRef
    computed: bool


def embed_faces(
    found: FoundFaces, *, store: str, contract: str, encoder: EncoderRef, device: str = "cpu"
) -> EmbeddedFaces:
    """Embed every face of a committed shard from its stored crops; nothing is done where that is stored already.

    Args:
        found: the committed shard.
        store: its uri.
        contract: the contract's id.
        encoder: stands in the store.
        device: of the encoder.
    """
    storage = open_store(store, create=True)
    name = shard_of(found.shard)
    there = find_embeddings(storage, encoder=encoder.id, shard=name, dimension=encoder.dimension)
    if there is not None:
        return EmbeddedFaces(embeddings=there, computed=False)
    net = _encoder(store, encoder.id, device)
    faces = read_faces(
        storage,
        contract=contract,
        shard=name,
        columns=["face_id", "photo_sha256", "box", "landmarks", "rotation", "crop", "crop_origin", "crop_scale"],
    )
    extents = _photo_sizes(read_photos(storage, contract=contract, shard=name))

    def input_of(row: dict[str, Any]) -> npt.NDArray[np.uint8]:
        return face_input_of_row(row, net.card, photo_size=extents[row["photo_sha256"]])

    embeddings_ND = np.zeros((faces.num_rows, encoder.dimension), dtype=np.float32)
    for start in range(0, faces.num_rows, _BATCH):
        rows = faces.slice(start, _BATCH).to_pylist()
        inputs = in_threads(input_of, rows, threads=cutting_threads(device))
        embeddings_ND[start : start + len(rows)] = net.embed(np.stack(inputs))
    ids = faces.column("face_id").to_pylist()
    if len(ids) != len(embeddings_ND):
        raise LookalikeError(f"shard {name} lost faces: {len(ids)} stored, {len(embeddings_ND)} embedded")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings_ND.reshape(-1)), encoder.dimension)
    table = pa.Table.from_arrays([pa.array(ids, pa.int64()), vectors], schema=embeddings_schema(encoder.dimension))
    committed = commit_embeddings(storage, encoder=encoder.id, shard=name, table=table, dimension=encoder.dimension)
    if find_shard(storage, contract=contract, shard=name) is None:
        storage.remove(storage.path_of(committed.uri))
        raise LookalikeError(
            f"somebody in shard {name} was forgotten while it was embedded; run the same command again"
        )
    return EmbeddedFaces(embeddings=committed, computed=True)


def face_input_of_row(row: dict[str, Any], card: EncoderCard, *, photo_size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """An encoder's input made from a stored crop.

    Args:
        row: crop, crop_origin, crop_scale, box, landmarks and rotation of one face, as stored.
        card: the encoder's.
        photo_size: width and height of the photo; beyond them the crop is black.

    Returns:
        uint8, (height, width, 3), RGB, as the card wants it.
    """
    pixels_HWC = decode_crop(row["crop"])
    crop = Crop(
        pixels=pixels_HWC,
        origin=np.asarray(row["crop_origin"], dtype=np.float64),
        scale=float(row["crop_scale"]),
    )
    box = crop.to_crop(np.asarray(row["box"], dtype=np.float32).reshape(2, 2)).reshape(4)
    landmarks_52 = crop.to_crop(np.asarray(row["landmarks"], dtype=np.float32).reshape(5, 2))
    photo_width, photo_height = photo_size
    return make_face_input(
        pixels_HWC,
        box,
        landmarks_52,
        geometry=card.geometry,
        height=card.input.height,
        width=card.input.width,
        extent=crop.photo_extent(photo_height=photo_height, photo_width=photo_width),
        rotation=int(row["rotation"] or 0),
    )


@lru_cache(maxsize=2)
def _encoder(store: str, encoder: str, device: str) -> Encoder:
    return load_stored_encoder(open_store(store), encoder, device=device)


def _photo_sizes(photos: pa.Table) -> dict[str, tuple[int, int]]:
    rows = photos.select(["photo_sha256", "width", "height"]).to_pylist()
    return {r["photo_sha256"]: (r["width"], r["height"]) for r in rows if r["width"] is not None}
