"""Verify shards, each once however many versions stand on it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from store.encoders import read_card
from store.errors import ArtifactError, LookalikeError
from store.fingerprints import fingerprint, sha256_hex, shard_name
from store.layout import embeddings_path, faces_path, photos_path
from store.manifest import EncoderRecord, ShardRecord
from store.schemas import FACES, PHOTOS, STATUSES, embeddings_schema, from_parquet
from store.storage import Storage

__all__ = ["ShardRows", "Shards"]

Add = Callable[[str, str, str], None]
Vectors = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]

_KEPT = 8
_ATTEMPTS = 64
_FACE_COLUMNS = ("face_id", "photo_sha256", "box")


@dataclass(frozen=True)
class ShardRows:
    """What a shard knows.

    Attributes:
        photos: the sha256 by uri.
        faces: photo_sha256 and box by face id.
    """

    photos: dict[str, str | None]
    faces: dict[int, tuple[str, tuple[float, ...]]]


class Shards:
    """The shards of a store, as they are read for verification.

    Args:
        storage: the store.
        add: is told path, kind and sentence of each problem.
    """

    def __init__(self, storage: Storage, add: Add) -> None:
        self._storage = storage
        self._add = add
        self._verified: dict[str, str] = {}
        self.named: set[str] = set()
        self.read = 0
        self.rows = lru_cache(maxsize=_KEPT)(self._rows)
        self.vectors = lru_cache(maxsize=_KEPT)(self._vectors)

    def verify(self, contract: str, encoder: EncoderRecord, record: ShardRecord) -> None:
        """Check a shard that a manifest names: hashes, rows, sums, and that embeddings are of unit length and of its faces."""
        photos, faces = photos_path(contract, record.name), faces_path(contract, record.name)
        embeddings = embeddings_path(encoder.id, record.name)
        self.named |= {photos, faces, embeddings}
        same = self._has_hash(photos, record.photos_sha256) & self._has_hash(faces, record.faces_sha256)
        vectors = self._has_hash(embeddings, record.embeddings_sha256)
        rows = self.rows(contract, record.name) if same else None
        if rows is not None:
            for path, got, wanted in (
                (photos, len(rows.photos), record.photos),
                (faces, len(rows.faces), record.faces),
            ):
                if got != wanted:
                    self._add(path, "count", f"it has {got} rows, a manifest says {wanted}")
        embedded = self.vectors(encoder, record.name) if vectors else None
        if rows is not None and embedded is not None and sorted(rows.faces) != sorted(embedded[0].tolist()):
            self._add(embeddings, "row", "it embeds other faces than the shard holds")

    def is_whole_shard(self, contract: str, shard: str) -> bool:
        """Whether photos and faces of a shard that no version names agree, and have the name that their rows give them."""
        path = photos_path(contract, shard)
        if not self._storage.exists(path) or not self._storage.exists(faces_path(contract, shard)):
            return False
        quiet = Shards(self._storage, _say_nothing)
        return quiet.rows(contract, shard) is not None and quiet._is_named_right(contract, shard)

    def is_whole_embeddings(self, encoder: str, shard: str) -> bool:
        """Whether embeddings that no version names are readable vectors of unit length, of a shard that is there."""
        quiet = Shards(self._storage, _say_nothing)
        contracts = [c for c in self._storage.names("faces") if self._storage.exists(faces_path(c, shard))]
        rows = next((found for c in contracts if (found := quiet.rows(c, shard)) is not None), None)
        try:
            card = read_card(self._storage, encoder)
            embedded = quiet.vectors(EncoderRecord(id=encoder, dimension=card["dimension"]), shard)
        except (LookalikeError, KeyError, ValueError):
            return False
        return rows is not None and embedded is not None and sorted(rows.faces) == sorted(embedded[0].tolist())

    def _has_hash(self, path: str, sha256: str) -> bool:
        """Hash each file once, and compare it with what every manifest says."""
        if path not in self._verified:
            self.read += path.startswith("photos/")
            exists = self._storage.exists(path)
            self._verified[path] = sha256_hex(self._storage.read(path)) if exists else ""
        got = self._verified[path]
        if not got:
            self._add(path, "missing", "a version names it, and it is not there")
        elif got != sha256:
            self._add(path, "hash", f"its sha256 is {got[:12]}…, a manifest says {sha256[:12]}…")
        return got == sha256

    def _rows(self, contract: str, shard: str) -> ShardRows | None:
        """A shard's rows, None where they cannot be read or contradict each other."""
        photos = self._table(photos_path(contract, shard), PHOTOS, None)
        faces = self._table(faces_path(contract, shard), FACES, _FACE_COLUMNS)
        if photos is None or faces is None:
            return None
        ids, of = faces.column("face_id").to_pylist(), faces.column("photo_sha256").to_pylist()
        statuses, path = photos.column("status").to_pylist(), photos_path(contract, shard)
        hashes, numbers = photos.column("photo_sha256").to_pylist(), photos.column("num_faces").to_pylist()
        if unknown := set(statuses) - set(STATUSES):
            return self._add(path, "status", f"it has the statuses {sorted(unknown)[:3]}, which nobody knows")
        if len(set(ids)) != len(ids):
            return self._add(faces_path(contract, shard), "row", "one face id stands there twice")
        found = Counter(of)
        if any(n != found.get(sha256, 0) for sha256, n in _most_by_photo(hashes, numbers).items()) or set(found) - set(
            hashes
        ):
            return self._add(path, "count", "its num_faces are not the faces that the shard holds")
        boxes = [tuple(box) for box in faces.column("box").to_pylist()]
        return ShardRows(
            photos=dict(zip(photos.column("uri").to_pylist(), hashes, strict=True)),
            faces=dict(zip(ids, zip(of, boxes, strict=True), strict=True)),
        )

    def _vectors(self, encoder: EncoderRecord, shard: str) -> Vectors | None:
        """A shard's face ids and embeddings, None where they cannot be read or are no unit vectors."""
        path, dimension = embeddings_path(encoder.id, shard), encoder.dimension
        table = self._table(path, embeddings_schema(dimension), None)
        if table is None:
            return None
        matrix = table.column("embedding").combine_chunks().flatten().to_numpy().reshape(-1, dimension)
        ids = table.column("face_id").to_numpy()
        if not np.all(np.abs(np.linalg.norm(matrix, axis=1) - 1) < 1e-3):
            return self._add(path, "vector", "a vector is not of unit length")
        return ids, matrix

    def _table(self, path: str, schema: pa.Schema, columns: tuple[str, ...] | None) -> pa.Table | None:
        try:
            return from_parquet(self._storage.read(path), schema, where=path, columns=columns)
        except ArtifactError as error:
            return self._add(path, "table", str(error))

    def _is_named_right(self, contract: str, shard: str) -> bool:
        table = self._table(photos_path(contract, shard), PHOTOS, ("uri", "bytes", "etag", "mtime_ns"))
        if table is None:
            return False
        prints = [
            fingerprint(row["uri"], size=row["bytes"], etag=row["etag"], mtime_ns=row["mtime_ns"])
            for row in table.to_pylist()
        ]
        names = (shard_name(contract=contract, attempt=n, fingerprints=prints) for n in range(_ATTEMPTS))
        return shard in names


def _most_by_photo(hashes: list[str | None], numbers: list[int]) -> dict[str, int]:
    """Faces by photo; of photos with equal bytes in one shard each row says the same number."""
    return {sha256: n for sha256, n in zip(hashes, numbers, strict=True) if sha256 is not None}


def _say_nothing(_path: str, _kind: str, _sentence: str) -> None:
    pass
