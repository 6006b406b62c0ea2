"""The faces that an encoder can be trained or measured on: one a labelled photo."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.card import EncoderCard
from store.schemas import PLAN, from_parquet
from store.shards import read_faces, read_photos
from store.storage import Storage
from tasks.steps.embed_faces import face_input_of_row
from tasks.steps.live_filter import live_forgotten
from tasks.steps.main_face import main_face
from tasks.steps.plan_build import BuildPlan

__all__ = ["face_inputs", "labelled_faces"]

Row = dict[str, Any]


def labelled_faces(storage: Storage, plan: BuildPlan, *, contract: str) -> tuple[list[Row], list[str]]:
    """The main face of every labelled photo of a plan, with its crop and `photo_size`, and the labels.

    Equal bytes count once, under the first label; a photo without a face does not count. The order is by label, then by the photo's sha256:
    how the photos lie in shards, when they were copied and from where does not change what is learnt from them.

    Args:
        storage: the store.
        plan: its shards are committed.
        contract: the contract's id.
    """
    data = storage.read(storage.path_of(plan.table.uri), sha256=plan.table.sha256)
    planned = from_parquet(data, PLAN, where=plan.table.uri).to_pylist()
    label_of = {(row["shard"], row["uri"]): row["label"] for row in planned if row["label"]}
    found: dict[str, tuple[str, Row]] = {}
    forgotten = live_forgotten(storage)
    for shard in sorted({shard for shard, _ in label_of}):
        faces: dict[str, list[Row]] = {}
        for face in read_faces(storage, contract=contract, shard=shard).to_pylist():
            if not forgotten.has_face(face):
                faces.setdefault(face["photo_sha256"], []).append(face)
        for photo in read_photos(storage, contract=contract, shard=shard).to_pylist():
            label, sha256 = label_of.get((shard, photo["uri"])), photo["photo_sha256"]
            if label is None or sha256 not in faces or (sha256 in found and found[sha256][0] <= label):
                continue
            size = (photo["width"], photo["height"])
            found[sha256] = label, main_face(faces[sha256], photo_size=size) | {"photo_size": size}
    ordered = sorted(found.items(), key=lambda item: (item[1][0], item[0]))
    return [face for _, (_, face) in ordered], [label for _, (label, _) in ordered]


def face_inputs(rows: Sequence[Row], card: EncoderCard) -> npt.NDArray[np.uint8]:
    """The faces as an encoder takes them, uint8 (N, height, width, 3), cut from their stored crops."""
    empty = np.empty((0, card.input.height, card.input.width, 3), np.uint8)
    return np.stack([face_input_of_row(row, card, photo_size=row["photo_size"]) for row in rows]) if rows else empty
