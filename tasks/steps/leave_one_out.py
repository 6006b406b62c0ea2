"""How often the nearest other photo shows the same person, over a published version."""

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.metrics import precision_at_1
from store.errors import LookalikeError
from store.layout import open_store
from store.shards import read_vectors
from store.version_files import read_faces_of, read_photos_of
from store.versions import read_version
from tasks.steps.main_face import main_face

__all__ = ["LeaveOneOut", "leave_one_out"]


@dataclass(frozen=True)
class LeaveOneOut:
    """A leave-one-out measurement.

    Attributes:
        precision_at_1: share of queries whose nearest other photo is the same person's, in [0, 1].
        queries: photos of people with two or more.
        gallery: photos searched, one face each.
    """

    precision_at_1: float
    queries: int
    gallery: int


def leave_one_out(store: str, *, version: int | None = None, people: Collection[str] | None = None) -> LeaveOneOut:
    """Ask a version for the nearest other photo of each photo, by its main face, nearest the centre.

    Args:
        store: the store's uri.
        version: None asks CURRENT.
        people: measure among these only; None measures among all.

    Returns:
        The share, with a person named by the label, or by the photo's folder where there is no label.

    Raises:
        LookalikeError: nobody has two photos with a face.
    """
    storage = open_store(store)
    opened = read_version(storage, version)
    photos, faces = read_photos_of(storage, opened), read_faces_of(storage, opened)
    of_photo: dict[str, list[dict[str, Any]]] = {}
    for face in faces.to_pylist():
        of_photo.setdefault(face["photo_sha256"], []).append(face)
    chosen: list[tuple[int, str]] = []
    for photo in photos.to_pylist():
        person = photo["label"] or os.path.basename(os.path.dirname(photo["uri"]))
        if photo["status"] == "indexed" and (people is None or person in people):
            size = (photo["width"], photo["height"])
            chosen.append((main_face(of_photo[photo["photo_sha256"]], photo_size=size)["face_id"], person))
    encoder = opened.manifest.encoder
    vectors: dict[int, Any] = {}
    for shard in opened.manifest.shards:
        ids_S, embeddings_SD = read_vectors(storage, encoder=encoder.id, shard=shard.name, dimension=encoder.dimension)
        vectors.update(zip(ids_S.tolist(), embeddings_SD, strict=True))
    labels = [person for _, person in chosen]
    queries = sum(n for n in Counter(labels).values() if n > 1)
    if queries == 0:
        raise LookalikeError(
            f"version {opened.number} of {storage.uri} has nobody with two photos with a face: there is nothing to measure"
        )
    emb_ND = np.stack([vectors[identity] for identity, _ in chosen])
    return LeaveOneOut(precision_at_1(emb_ND, labels), queries, len(chosen))
