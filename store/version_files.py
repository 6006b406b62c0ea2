"""What a version's files hold: its tables as they are now, whether they stand in it whole or as changes to those of another version.

A version that is kept as changes has three files of its base, byte for byte, `left.parquet`, which says what of them counts no more,
and `added_*` files of what came. Whoever asks for a table gets it whole. N rows, as they are now; B of the base, A added.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import ArtifactError
from store.manifest import Manifest
from store.schemas import ADDED_PHOTOS, LEFT, VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.storage import Storage
from store.verified_files import verified_file
from store.versions import PublishedVersion

__all__ = [
    "ADDED_FACES",
    "ADDED_INDEX",
    "ADDED_PHOTOS_FILE",
    "FACES_FILE",
    "INDEX_FILE",
    "LEFT_FILE",
    "OF_CHANGES",
    "OF_THE_BASE",
    "PHOTOS_FILE",
    "TABLES_OF_ROWS",
    "VersionFiles",
    "face_rows",
    "files_of",
    "photo_rows",
    "read_faces_of",
    "read_photos_of",
    "taken",
]

INDEX_FILE = "index.faiss"
FACES_FILE = "faces.parquet"
PHOTOS_FILE = "photos.parquet"
OF_THE_BASE = (INDEX_FILE, FACES_FILE, PHOTOS_FILE)
"""What a version that is kept as changes has from its base."""

ADDED_INDEX = "added_index.faiss"
ADDED_FACES = "added_faces.parquet"
ADDED_PHOTOS_FILE = "added_photos.parquet"
LEFT_FILE = "left.parquet"
OF_CHANGES = (ADDED_INDEX, ADDED_FACES, ADDED_PHOTOS_FILE, LEFT_FILE)
"""What it has of its own besides."""

TABLES_OF_ROWS = (PHOTOS_FILE, FACES_FILE, ADDED_PHOTOS_FILE, ADDED_FACES)
"""Tables that tell of photos and faces, of any version."""

Rows = npt.NDArray[np.int64]

_SCHEMAS = {
    PHOTOS_FILE: VERSION_PHOTOS,
    FACES_FILE: VERSION_FACES,
    ADDED_PHOTOS_FILE: ADDED_PHOTOS,
    ADDED_FACES: VERSION_FACES,
    LEFT_FILE: LEFT,
}

_TAKERS = 2  # columns at a time


@dataclass(frozen=True)
class VersionFiles:
    """The files of a version, published or drafted.

    Attributes:
        storage: the store.
        manifest: what names them.
        paths: where each lies, by its name.
        called: what messages call the version.
    """

    storage: Storage
    manifest: Manifest
    paths: Mapping[str, str]
    called: str

    def read(self, name: str) -> bytes:
        """A file, checked against the hash in the manifest before anybody parses it."""
        return self.storage.read(self.paths[name], sha256=self.manifest.files[name].sha256)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One of the tables as it stands in a file.

        Raises:
            ArtifactError: it is missing, or is not what was written; the message says where.
        """
        return self._table(self._checked(name), name, columns)

    def _checked(self, name: str) -> Path | bytes:
        """The file, its hash checked: of this machine by its path, so that no more of it is read than is asked for."""
        if not self.storage.local:
            return self.read(name)
        record = self.manifest.files[name]
        return verified_file(self.storage, self.paths[name], sha256=record.sha256, size=record.bytes)

    def _table(self, data: Path | bytes, name: str, columns: Sequence[str] | None) -> pa.Table:
        return from_parquet(data, _SCHEMAS[name], where=f"{self.called}'s {name}", columns=columns)

    def left(self, of: Literal["photos", "faces", "vectors"]) -> Rows:
        """What of the base's files counts no more, int64, ascending: row numbers of photos, face ids of the others."""
        if self.manifest.changes is None:
            return np.zeros(0, np.int64)
        table = self.table(LEFT_FILE)
        ids: Rows = np.sort(table.filter(pc.equal(table["of"], of))["id"].to_numpy())
        return ids

    def photos(self, columns: Sequence[str] | None = None) -> pa.Table:
        """VERSION_PHOTOS by rising uri, or some of its columns.

        Raises:
            ArtifactError: as of `table`, or where the changes do not fit the base.
        """
        if self.manifest.changes is None:
            return self.table(PHOTOS_FILE, columns)
        names = list(VERSION_PHOTOS.names if columns is None else columns)
        base, added = self._checked(PHOTOS_FILE), self.table(ADDED_PHOTOS_FILE, [*names, "row"])
        first = self._table(base, PHOTOS_FILE, names[:1])
        rows_N = photo_rows(first.num_rows, self.left("photos"), added["row"].to_numpy(), where=self.called)
        return self._put_together(base, PHOTOS_FILE, added, rows_N, first=first, names=names)

    def faces(self, columns: Sequence[str] | None = None) -> pa.Table:
        """VERSION_FACES by rising face_id, or some of its columns; errors as of `photos`."""
        if self.manifest.changes is None:
            return self.table(FACES_FILE, columns)
        names = list(VERSION_FACES.names if columns is None else columns)
        base, added = self._checked(FACES_FILE), self.table(ADDED_FACES, list(dict.fromkeys([*names, "face_id"])))
        first = self._table(base, FACES_FILE, ["face_id"])
        ids = first["face_id"].to_numpy(), added["face_id"].to_numpy()
        rows_N = face_rows(*ids, self.left("faces"), where=self.called)
        return self._put_together(base, FACES_FILE, added, rows_N, first=first, names=names)

    def _put_together(
        self, base: Path | bytes, name: str, added: pa.Table, rows_N: Rows, *, first: pa.Table, names: Sequence[str]
    ) -> pa.Table:
        """Columns of the base and of what was added, a few at a time, so that no more of the base is held beside the result."""

        def column(one: str) -> pa.Array:
            of_base = first if one in first.column_names else self._table(base, name, [one])
            return _taken_column([of_base, added], one, rows)

        rows = pa.array(rows_N)
        with ThreadPoolExecutor(_TAKERS, thread_name_prefix="take-columns") as takers:
            fields = [_SCHEMAS[name].field(one) for one in names]
            return pa.table(list(takers.map(column, names)), schema=pa.schema(fields))

    def raw_tables(self) -> list[str]:
        """The names of all tables of photos and faces that lie there; what counts no more stands in them too."""
        return [name for name in TABLES_OF_ROWS if name in self.manifest.files]


def files_of(storage: Storage, version: PublishedVersion) -> VersionFiles:
    """Those of a published version."""
    paths = {name: version.path_of(name) for name in version.manifest.files}
    return VersionFiles(storage, version.manifest, paths, f"version {version.number}")


def read_photos_of(storage: Storage, version: PublishedVersion, columns: Sequence[str] | None = None) -> pa.Table:
    """VERSION_PHOTOS of a published version; see `VersionFiles.photos`."""
    return files_of(storage, version).photos(columns)


def read_faces_of(storage: Storage, version: PublishedVersion, columns: Sequence[str] | None = None) -> pa.Table:
    """VERSION_FACES of a published version; see `VersionFiles.faces`."""
    return files_of(storage, version).faces(columns)


def photo_rows(base: int, left_L: Rows, rows_A: Rows, *, where: str) -> Rows:
    """Which row of the base's photos each photo is, or of those added, which are numbered on: int64 (N,).

    Args:
        base: rows of the base.
        left_L: those that count no more, ascending.
        rows_A: of each that was added, its row among all, ascending.
        where: what to call the version.

    Raises:
        ArtifactError: they do not fit together.
    """
    total = base - len(left_L) + len(rows_A)
    if (
        (len(left_L) and (left_L[0] < 0 or left_L[-1] >= base or np.any(np.diff(left_L) <= 0)))
        or (len(rows_A) and (rows_A[0] < 0 or rows_A[-1] >= total))
        or np.any(np.diff(rows_A) <= 0)
    ):
        raise ArtifactError(f"{where}'s changes do not fit its photos: roll back or rebuild")
    rows_N = np.empty(total, np.int64)
    old_N = np.ones(total, np.bool_)
    old_N[rows_A] = False
    stays_B = np.ones(base, np.bool_)
    stays_B[left_L] = False
    rows_N[old_N] = np.flatnonzero(stays_B)
    rows_N[rows_A] = base + np.arange(len(rows_A))
    return rows_N


def face_rows(ids_B: Rows, ids_A: Rows, left_L: Rows, *, where: str) -> Rows:
    """Which row of the base's faces each face is, or of those added, which are numbered on: int64 (N,), by rising face id.

    Args:
        ids_B: of the base, ascending.
        ids_A: of those added, ascending.
        left_L: of the base's, those that count no more, ascending.
        where: what to call the version.

    Raises:
        ArtifactError: they do not fit together.
    """
    at_L = np.searchsorted(ids_B, left_L)
    stays_B = np.ones(len(ids_B), np.bool_)
    if len(at_L) and (at_L[-1] >= len(ids_B) or not np.array_equal(ids_B[at_L], left_L)):
        raise ArtifactError(f"{where}'s changes do not fit its faces: roll back or rebuild")
    stays_B[at_L] = False
    rows = np.flatnonzero(stays_B)
    ids_N = np.concatenate([ids_B[rows], ids_A])
    order = np.argsort(ids_N, kind="stable")
    if np.any(np.diff(ids_N[order]) <= 0):
        raise ArtifactError(f"{where}'s changes name a face twice: roll back or rebuild")
    rows_N: Rows = np.concatenate([rows, len(ids_B) + np.arange(len(ids_A))])[order]
    return rows_N


def taken(parts: Sequence[pa.Table], rows_N: Rows) -> pa.Table:
    """Some rows of tables with the same columns, numbered through all of them: a column at a time, so that none is held twice."""
    rows, names = pa.array(rows_N), parts[0].column_names
    with ThreadPoolExecutor(_TAKERS, thread_name_prefix="take-columns") as takers:
        return pa.table(list(takers.map(lambda name: _taken_column(parts, name, rows), names)), schema=parts[0].schema)


def _taken_column(parts: Sequence[pa.Table], name: str, rows: pa.Array) -> pa.Array:
    chunks = [chunk for part in parts for chunk in part[name].chunks]
    return pa.chunked_array(chunks, parts[0].schema.field(name).type).combine_chunks().take(rows)
