"""Read the embeddings of a version's faces from their shards: block by block where they are many, at once where they are few.

N faces, D dimensions of an embedding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from store.errors import ArtifactError
from store.layout import embeddings_path
from store.manifest import Manifest
from store.schemas import TO_CODE, embeddings_schema, from_parquet
from store.storage import Storage
from tasks.steps.face_blocks import BLOCK, FaceBlocks, Gallery

__all__ = ["StoredFaces", "open_faces", "open_part", "read_face_vectors"]

_HELD_BYTES = 256 * 2**20  # of vectors that are read once and held: of 512 dimensions, 131,072 faces

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StoredFaces:
    """Faces whose vectors are read shard by shard whenever they are wanted; see `FaceBlocks`.

    Attributes:
        storage: the store.
        encoder: the encoder's id.
        dimension: D.
        ids: int64 (N,), ascending.
        shards: names.
        order: int64 (N,), rows by shard.
        ends: int64, where each shard's rows begin in `order`, and where the last ones end.
        hashes: sha256 that a shard's file must have, where it is known.
    """

    storage: Storage
    encoder: str
    dimension: int
    ids: Ints
    shards: tuple[str, ...]
    order: Ints
    ends: Ints
    hashes: dict[str, str]

    def blocks(self) -> Iterator[tuple[Ints, Floats]]:
        """As of FaceBlocks, by shard.

        Raises:
            ArtifactError: a face has no embedding, or a file is not what was recorded.
        """
        for first, last in _runs(np.diff(self.ends), BLOCK):
            vectors_BD = np.concatenate([self._of(self.shards[n], self._rows(n, n + 1)) for n in range(first, last)])
            yield self._rows(first, last), vectors_BD

    def parts(self, faces: int) -> Iterator[pa.Table]:
        """TO_CODE of so many whole blocks at a time that they have at least so many faces, but for the last.

        Opened by itself, a part has the same blocks.
        """
        shard_N = np.zeros(len(self.ids), np.int64)
        shard_N[self.order] = np.repeat(np.arange(len(self.shards)), np.diff(self.ends))
        names = pa.array(self.shards, pa.string())
        hashes = pa.array([self.hashes.get(shard) for shard in self.shards], pa.string())
        blocks = list(_runs(np.diff(self.ends), BLOCK))
        sizes = [int(self.ends[last] - self.ends[first]) for first, last in blocks]
        for first, last in _runs(sizes, faces):
            rows = np.sort(self._rows(blocks[first][0], blocks[last - 1][1]))
            which = pa.array(shard_N[rows])
            columns = {"face_id": self.ids[rows], "row": rows, "shard": names.take(which), "sha256": hashes.take(which)}
            yield pa.table(columns, schema=TO_CODE)

    def take(self, rows_S: Ints) -> Floats:
        """As of FaceBlocks; no shard is read that holds none of them.

        Raises:
            ArtifactError: as of `blocks`.
        """
        wanted = np.zeros(len(self.ids), np.bool_)
        wanted[rows_S] = True
        vectors_SD = np.zeros((len(rows_S), self.dimension), np.float32)
        for n, shard in enumerate(self.shards):
            rows = self._rows(n, n + 1)
            rows = rows[wanted[rows]]
            if len(rows):
                vectors_SD[np.searchsorted(rows_S, rows)] = self._of(shard, rows)
        return vectors_SD

    def _rows(self, first: int, last: int) -> Ints:
        """Rows of some shards, one shard after another."""
        return self.order[self.ends[first] : self.ends[last]]

    def _of(self, shard: str, rows_M: Ints) -> Floats:
        """The vectors of those rows, float32 (M, D), all of which are in the shard."""
        path = embeddings_path(self.encoder, shard)
        data = self.storage.read(path, sha256=self.hashes.get(shard))
        table = from_parquet(data, embeddings_schema(self.dimension), where=self.storage.uri_of(path))
        matrix_SD = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, self.dimension)
        places_M = _places(table["face_id"].to_numpy(), self.ids[rows_M], shard=shard, encoder=self.encoder)
        vectors_MD: Floats = matrix_SD[places_M]
        return vectors_MD


def open_faces(
    storage: Storage, faces: pa.Table, *, encoder: str, dimension: int, recorded: Manifest | None
) -> FaceBlocks:
    """The faces of a version with their vectors: held where they are few, else read again whenever they are wanted.

    Args:
        storage: the store.
        faces: VERSION_FACES, or its face_id and shard, by rising face_id.
        encoder: the encoder's id.
        dimension: D.
        recorded: a manifest of the same encoder, whose hashes its shards' files must have.

    Raises:
        ArtifactError: a face has no embedding, or a file is not what was recorded; where they are many, only when they are read.
    """
    hashes = {shard.name: shard.embeddings_sha256 for shard in recorded.shards} if recorded else {}
    stored = _stored(storage, faces, encoder, dimension, hashes)
    return stored if 4 * dimension * faces.num_rows > _HELD_BYTES else _held(stored)


def open_part(storage: Storage, part: pa.Table, *, encoder: str, dimension: int) -> StoredFaces:
    """The faces of a part that `StoredFaces.parts` gave, numbered from 0.

    Args:
        storage: the store.
        part: TO_CODE.
        encoder: the encoder's id.
        dimension: D.
    """
    of_shards = part.group_by(["shard", "sha256"]).aggregate([]).to_pylist()
    hashes = {row["shard"]: row["sha256"] for row in of_shards if row["sha256"] is not None}
    return _stored(storage, part, encoder, dimension, hashes)


def read_face_vectors(
    storage: Storage, faces: pa.Table, *, encoder: str, dimension: int, recorded: Manifest | None
) -> Floats:
    """The embedding of every face at once, float32 (N, D), in the order of the table; arguments and refusals as of `open_faces`."""
    opened = open_faces(storage, faces, encoder=encoder, dimension=dimension, recorded=recorded)
    return opened.vectors if isinstance(opened, Gallery) else _held(opened).vectors


def _stored(storage: Storage, faces: pa.Table, encoder: str, dimension: int, hashes: dict[str, str]) -> StoredFaces:
    shards = faces["shard"].combine_chunks().dictionary_encode()
    of_face_N = shards.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(of_face_N, kind="stable")
    return StoredFaces(
        storage=storage,
        encoder=encoder,
        dimension=dimension,
        ids=faces["face_id"].to_numpy(),
        shards=tuple(shards.dictionary.to_pylist()),
        order=order,
        ends=np.searchsorted(of_face_N[order], np.arange(len(shards.dictionary) + 1)),
        hashes=hashes,
    )


def _runs(sizes: Sequence[int] | Ints, least: int) -> Iterator[tuple[int, int]]:
    """First and last, exclusive, of as many in a row as have together at least so many; the last run may have fewer."""
    first, held = 0, 0
    for number, size in enumerate(sizes):
        held += int(size)
        if held >= least or number == len(sizes) - 1:
            yield first, number + 1
            first, held = number + 1, 0


def _held(faces: FaceBlocks) -> Gallery:
    vectors_ND = np.zeros((len(faces.ids), faces.dimension), np.float32)
    for rows_B, vectors_BD in faces.blocks():
        vectors_ND[rows_B] = vectors_BD
    return Gallery(faces.ids, vectors_ND)


def _places(stored_S: Ints, wanted_M: Ints, *, shard: str, encoder: str) -> Ints:
    by_id = np.argsort(stored_S, kind="stable")
    at = np.searchsorted(stored_S[by_id], wanted_M)
    absent = (at >= len(stored_S)) | (stored_S[by_id[np.minimum(at, max(len(stored_S) - 1, 0))]] != wanted_M)
    if np.any(absent):
        raise ArtifactError(f"face {wanted_M[absent][0]} of shard {shard} has no embedding by {encoder}")
    places: Ints = by_id[at]
    return places
