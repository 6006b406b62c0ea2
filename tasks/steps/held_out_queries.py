"""Queries that are not in the index as they stand: stored crops mirrored, moved, turned, blurred and lit otherwise, embedded again.

Q queries of D dimensions.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import ArtifactError
from store.shards import read_faces, read_photos
from store.storage import Storage
from tasks.steps.embed_faces import face_input_of_row
from tasks.steps.resolve_encoder import load_stored_encoder

__all__ = ["HELD_OUT", "HeldOutQueries", "held_out_queries"]

HELD_OUT = 256
"""Queries of each set."""

_SHARDS = 32  # so that a store of a million shards costs no more than a small one
_BATCH = 32
_SEED = 20_261_126
_COLUMNS = ("face_id", "photo_sha256", "box", "landmarks", "rotation", "crop", "crop_origin", "crop_scale")


@dataclass(frozen=True)
class HeldOutQueries:
    """Queries, float32 (Q, D), unit length, and whose crops they were made of, face ids, int64 (Q,)."""

    faces: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]


def held_out_queries(
    storage: Storage,
    faces: pa.Table,
    *,
    contract: str,
    encoder: str,
    purpose: Literal["tune", "gate"],
    count: int = HELD_OUT,
) -> HeldOutQueries:
    """Changed crops of some faces, embedded; the same for the same faces.

    Those that an index is tuned with and those that the gate asks it with are of different faces.

    Args:
        storage: the store.
        faces: face_id and shard of VERSION_FACES.
        contract: the contract's id.
        encoder: the encoder's id.
        purpose: which of two sets that have no face in common.
        count: how many, at most half of the faces.

    Raises:
        ArtifactError: a face is not in its shard.
    """
    generator = np.random.default_rng(_SEED)
    chosen = _some(faces, generator, purpose, count)
    net = load_stored_encoder(storage, encoder)
    inputs, made_of = [], []
    for shard in sorted(set(chosen["shard"].to_pylist())):
        wanted = chosen.filter(pc.equal(chosen["shard"], shard))["face_id"].combine_chunks()
        stored = read_faces(storage, contract=contract, shard=shard, columns=list(_COLUMNS))
        rows = stored.filter(pc.is_in(stored["face_id"], value_set=wanted)).to_pylist()
        if len(rows) != len(wanted):
            raise ArtifactError(f"{len(wanted) - len(rows)} faces of the version are not in their shard {shard}")
        photos = read_photos(storage, contract=contract, shard=shard)
        sizes = {row["photo_sha256"]: (row["width"], row["height"]) for row in photos.to_pylist()}
        inputs += [face_input_of_row(row, net.card, photo_size=sizes[row["photo_sha256"]]) for row in rows]
        made_of += [row["face_id"] for row in rows]
    changed_QHWC = _changed(np.stack(inputs), seed=int(generator.integers(2**31)) + (purpose == "gate"))
    parts = [net.embed(changed_QHWC[start : start + _BATCH]) for start in range(0, len(inputs), _BATCH)]
    return HeldOutQueries(np.array(made_of, np.int64), np.concatenate(parts).astype(np.float32))


def _some(faces: pa.Table, generator: np.random.Generator, purpose: str, count: int) -> pa.Table:
    """Faces of one purpose, from a few shards."""
    shards = np.array(sorted(faces["shard"].unique().to_pylist()), dtype=object)
    near = generator.permutation(shards)[:_SHARDS].tolist()
    there = faces.filter(pc.is_in(faces["shard"], value_set=pa.array(near, pa.string())))
    order = generator.permutation(there.num_rows)
    half = order[: len(order) // 2] if purpose == "tune" else order[len(order) // 2 :]
    return there.select(["face_id", "shard"]).take(pa.array(np.sort(half[:count])))


def _changed(inputs_QHWC: npt.NDArray[np.uint8], *, seed: int) -> npt.NDArray[np.uint8]:
    """Every input mirrored or not, moved, turned, scaled, lit otherwise; every second one blurred."""
    import torch  # noqa: PLC0415  only an approximate index needs it here
    from torch.nn import functional  # noqa: PLC0415

    from models.augment import AugmentSettings, augment_crops  # noqa: PLC0415

    generator = torch.Generator().manual_seed(seed)
    pixels_QCHW = torch.from_numpy(inputs_QHWC).permute(0, 3, 1, 2).float() / 255
    changed = augment_crops(pixels_QCHW, AugmentSettings(), generator=generator)
    changed[::2] = functional.avg_pool2d(changed[::2], 3, stride=1, padding=1, count_include_pad=False)
    return (changed * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
