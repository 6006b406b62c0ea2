"""Write a version's faces and their embeddings as Parquet that any vector database loads."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from store.errors import VersionError
from store.fingerprints import sha256_hex
from store.forgotten import Forgotten, read_forgotten
from store.layout import open_store
from store.leases import hold_lease
from store.manifest import Manifest
from store.schemas import VERSION_FACES, to_parquet
from store.storage import Storage
from store.version_files import read_faces_of
from store.versions import read_version
from tasks.steps.stored_faces import read_face_vectors

__all__ = ["ExportedFaces", "export_faces", "exported_schema"]

_COLUMNS = ("face_id", "photo_sha256", "uri", "uris", "label", "box", "score", "quality")
_MOST_FACES = 65_536  # 128 MiB of float32 in 512 dimensions


@dataclass(frozen=True)
class ExportedFaces:
    """What was written.

    Attributes:
        faces: rows in all files.
        files: how many hold them.
        bytes: of these files together.
    """

    faces: int
    files: int
    bytes: int


def exported_schema(dimension: int) -> pa.Schema:
    """A row a face: what VERSION_FACES says of it, and its embedding, float32 of so many dimensions and unit length."""
    fields = [VERSION_FACES.field(name) for name in _COLUMNS]
    return pa.schema([*fields, pa.field("embedding", pa.list_(pa.float32(), dimension), nullable=False)])


def export_faces(number: int, folder: Path, *, store: str, most_faces: int = _MOST_FACES) -> ExportedFaces:
    """Write `faces-00000.parquet`, … and `_export.json`, which says what they are of; every hash is checked on the way.

    (Readers of Parquet folders pass over names that begin with `_`.) Embeddings are read shard by shard; no more of them than one
    file's are in memory, besides the version's table of faces.

    Args:
        number: the version's.
        folder: where they go; it appears when all of it is whole.
        store: its uri.
        most_faces: of a file; its last shard's may be beyond.

    Raises:
        VersionError: there is no such version, or the folder exists already or cannot be written.
        ArtifactError: a file of the version is missing, or is not what was published.
    """
    if folder.exists():
        raise VersionError(f"{folder} exists already: give another name, or remove it")
    storage = open_store(store)
    version = read_version(storage, number)
    manifest = version.manifest
    faces = _known(read_faces_of(storage, version), read_forgotten(storage))
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        part.mkdir()
        with hold_lease(storage, f"export-{uuid.uuid4()}", shards=[shard.name for shard in manifest.shards]):
            written = [
                _write(part / f"faces-{n:05}.parquet", storage, some, manifest)
                for n, some in enumerate(_cut(faces, most_faces))
            ]
        exported = ExportedFaces(faces.num_rows, len(written), sum(size for _, size in written))
        about = {
            "version": number,
            "revision": manifest.revision,
            "content_sha256": manifest.content_sha256,
            "encoder": manifest.encoder.model_dump(),
            "metric": manifest.index.metric,
            **asdict(exported),
            "sha256": dict(
                zip((f"faces-{n:05}.parquet" for n in range(len(written))), (h for h, _ in written), strict=True)
            ),
        }
        _write_bytes(part / "_export.json", json.dumps(about, indent=1).encode())
        os.rename(part, folder)
    except OSError as error:
        raise VersionError(
            f"{folder} cannot be written ({error.strerror or error}): make room or give another name"
        ) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(part)
    return exported


def _known(faces: pa.Table, forgotten: Forgotten) -> pa.Table:
    """Without those who were forgotten since the version was written."""
    if not forgotten:
        return faces
    rows = faces.select(["face_id", "photo_sha256", "box"]).to_pylist()
    return faces.filter(pa.array([not forgotten.has_face(row) for row in rows], pa.bool_()))


def _cut(faces: pa.Table, most: int) -> Iterator[pa.Table]:
    """Faces in the order of their shards, so many at once, no shard in two parts; one empty part where there are none."""
    ordered = faces.sort_by([("shard", "ascending"), ("face_id", "ascending")])
    names = ordered["shard"].to_pylist()
    first = 0
    for at in range(1, len(names)):
        if at - first >= most and names[at] != names[at - 1]:
            yield ordered.slice(first, at - first)
            first = at
    yield ordered.slice(first)


def _write(path: Path, storage: Storage, faces: pa.Table, manifest: Manifest) -> tuple[str, int]:
    dimension = manifest.encoder.dimension
    vectors_ND = read_face_vectors(storage, faces, encoder=manifest.encoder.id, dimension=dimension, recorded=manifest)
    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.reshape(-1)), dimension)
    table = faces.select(list(_COLUMNS)).append_column("embedding", embeddings)
    data = to_parquet(table, exported_schema(dimension))
    _write_bytes(path, data)
    return sha256_hex(data), len(data)


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
