"""The main face of each photo that pairs name, with its embedding, or why there is none.

N pairs, F photos with a face, D dimensions of an embedding.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import LookalikeError
from store.shards import read_faces, read_photos, read_vectors
from store.storage import Storage
from tasks.steps.live_filter import live_forgotten
from tasks.steps.main_face import main_face
from tasks.steps.resolve_encoder import EncoderRef

__all__ = ["NO_SCORE", "MainFace", "NamedFaces"]

NO_SCORE = -1.0
"""The cosine of a pair without two faces: no threshold but the lowest calls it one person."""

_PAIRS_AT_ONCE = 65_536

Row = dict[str, Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MainFace:
    """A photo's main face."""

    shard: str
    face_id: int
    photo_sha256: str


class NamedFaces:
    """What is known of each named photo: its status, and its main face's embedding."""

    def __init__(self, storage: Storage, *, contract: str, encoder: EncoderRef) -> None:
        self._storage, self._contract, self._encoder = storage, contract, encoder
        self.status: dict[str, tuple[str, str]] = {}
        self.main: dict[str, MainFace] = {}
        self.several = 0
        self._row_of: dict[str, int] = {}
        self.emb_FD: npt.NDArray[np.float32] = np.empty((0, encoder.dimension), np.float32)

    def read(self, shard_of_photo: dict[str, str]) -> None:
        """Read the shards of these photos, one after another."""
        by_shard: dict[str, set[str]] = {}
        for uri, shard in shard_of_photo.items():
            by_shard.setdefault(shard, set()).add(uri)
        vectors: list[npt.NDArray[np.float32]] = []
        for shard, uris in sorted(by_shard.items()):
            vectors += self._read_shard(shard, uris)
        if vectors:
            self.emb_FD = np.stack(vectors)
        if live_forgotten(self._storage):  # a forgotten photo has no row
            self.status |= dict.fromkeys(shard_of_photo.keys() - self.status.keys(), ("forgotten", "it was forgotten"))
        if self.status.keys() != shard_of_photo.keys():
            raise LookalikeError(f"the evaluation lost photos: {len(shard_of_photo)} planned, {len(self.status)} read")

    def _read_shard(self, shard: str, uris: set[str]) -> list[npt.NDArray[np.float32]]:
        of_photo: dict[str, list[Row]] = {}
        columns = ["face_id", "photo_sha256", "box", "score"]
        table = read_faces(self._storage, contract=self._contract, shard=shard, columns=columns)
        forgotten = live_forgotten(self._storage)
        for face in table.to_pylist():
            if not forgotten.has_face(face):
                of_photo.setdefault(face["photo_sha256"], []).append(face)
        ids, embeddings = read_vectors(
            self._storage, encoder=self._encoder.id, shard=shard, dimension=self._encoder.dimension
        )
        at = {identity: n for n, identity in enumerate(ids.tolist())}
        vectors = []
        for photo in read_photos(self._storage, contract=self._contract, shard=shard).to_pylist():
            uri = photo["uri"]
            if uri not in uris:
                continue
            self.status[uri] = (photo["status"], photo["reason"] or "no reason was kept")
            faces = of_photo.get(photo["photo_sha256"] or "", [])
            if photo["status"] != "indexed" or not faces:
                continue
            face = main_face(faces, photo_size=(photo["width"], photo["height"]))
            self.several += len(faces) > 1
            self.main[uri] = MainFace(shard, face["face_id"], photo["photo_sha256"])
            self._row_of[uri] = len(self._row_of)
            vectors.append(embeddings[at[face["face_id"]]].copy())
        return vectors

    def row_of(self, uri: str | None) -> int:
        """The row of a photo's main face in emb_FD, -1 where it has none."""
        return self._row_of.get(uri or "", -1)

    def scores(self, pairs: list[Row]) -> tuple[Floats, Bools]:
        """The cosine of each pair, and whether it has two faces; those that have not score NO_SCORE."""
        first_N, second_N = (np.array([self.row_of(p[f"{side}_uri"]) for p in pairs]) for side in ("first", "second"))
        covered_N = (first_N >= 0) & (second_N >= 0)
        scores_N = np.full(len(pairs), NO_SCORE)
        rows = np.flatnonzero(covered_N)
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            part = rows[start : start + _PAIRS_AT_ONCE]
            products = self.emb_FD[first_N[part]].astype(np.float64) * self.emb_FD[second_N[part]]
            scores_N[part] = np.clip(products.sum(axis=1), -1, 1)
        return scores_N, covered_N

    def why_none(self, uri: str | None) -> tuple[str, str] | None:
        """Status and reason of a photo without a face, None for one that has a face."""
        if uri is None:
            return "missing", "there is no such photo in the folder"
        return None if uri in self.main else self.status[uri]
