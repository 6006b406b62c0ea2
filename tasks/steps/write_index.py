"""Join shards into the files of a version, under the store's runs/, where nobody reads them yet."""

import importlib.metadata
import uuid
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from store.errors import ArtifactError, LookalikeError
from store.fingerprints import content_sha256, sha256_hex
from store.index_file import build_exact_index
from store.layout import embeddings_path, faces_path, open_store, photos_path
from store.manifest import ContractRecord, EncoderRecord, FileRecord, IndexRecord, Manifest, ShardRecord
from store.refs import ArtifactRef
from store.schemas import FACES, PLAN, STATUSES, VERSION_FACES, VERSION_PHOTOS, from_parquet, to_parquet
from store.shards import read_faces, read_photos, read_vectors
from store.storage import Storage
from tasks.steps.contract import Contract
from tasks.steps.plan_build import BuildPlan
from tasks.steps.resolve_encoder import EncoderRef

__all__ = ["DRAFT", "write_index"]

Row = dict[str, Any]
DRAFT = "draft.json"
"""The manifest of a version that is not checked yet, beside its files."""

_EXACT = "exact search: every face is compared with the query; nothing approximate has to prove itself at this size"
_LIBRARIES = ("faiss-cpu", "numpy", "onnxruntime", "openvino", "pillow", "pillow-heif", "prefect", "pyarrow", "torch")
_SHOWN = [n for n in VERSION_FACES.names if n not in {"uris", "label", "shard"}]


def write_index(plan: BuildPlan, *, store: str, contract: Contract, encoder: EncoderRef) -> ArtifactRef:
    """Write a version's index, tables and draft manifest under the store's runs/.

    Args:
        plan: every shard in it is committed and embedded.
        store: its uri.
        contract: of the shards.
        encoder: of the embeddings.

    Returns:
        The draft manifest; its rows are the faces in the index.
    """
    storage = open_store(store, create=True)
    table = from_parquet(
        storage.read(storage.path_of(plan.table.uri), sha256=plan.table.sha256), PLAN, where=plan.table.uri
    )
    photos = _photo_rows(storage, table.to_pylist(), contract=contract.id)
    faces, embeddings_ND = _face_rows(storage, photos, contract=contract.id, encoder=encoder)
    _check_sums(plan, photos, faces)
    ids_N = np.asarray([row["face_id"] for row in faces], dtype=np.int64)
    files = {
        "index.faiss": build_exact_index(ids_N, embeddings_ND),
        "photos.parquet": to_parquet(_table(photos, VERSION_PHOTOS), VERSION_PHOTOS),
        "faces.parquet": to_parquet(_table(faces, VERSION_FACES), VERSION_FACES),
    }
    manifest = _manifest(
        storage, plan, photos=photos, ids=ids_N.tolist(), files=files, contract=contract, encoder=encoder
    )
    folder = f"runs/builds/{manifest.build}"
    for name, data in files.items():
        storage.write(f"{folder}/{name}", data)
    draft = manifest.to_json()
    storage.write(f"{folder}/{DRAFT}", draft)
    return ArtifactRef(uri=storage.uri_of(f"{folder}/{DRAFT}"), sha256=sha256_hex(draft), rows=len(faces))


def _photo_rows(storage: Storage, planned: list[Row], *, contract: str) -> list[Row]:
    """VERSION_PHOTOS rows by rising uri; of photos with equal bytes the first is indexed, the others are duplicates."""
    stored: dict[tuple[str, str], Row] = {}
    for shard in sorted({row["shard"] for row in planned}):
        for row in read_photos(storage, contract=contract, shard=shard).to_pylist():
            stored[shard, row["uri"]] = row
    first: set[str] = set()
    rows: list[Row] = []
    for plan_row in planned:
        kept = stored.get((plan_row["shard"], plan_row["uri"]))
        if kept is None:  # it was forgotten, and is only counted
            continue
        row = plan_row | {
            name: kept[name] for name in ("photo_sha256", "status", "reason", "width", "height", "num_faces")
        }
        if row["status"] == "indexed" and row["photo_sha256"] in first:
            row |= {"status": "duplicate", "reason": "the same bytes are indexed under another uri"}
        elif row["status"] == "indexed":
            first.add(row["photo_sha256"])
        rows.append(row)
    return rows


def _face_rows(
    storage: Storage, photos: list[Row], *, contract: str, encoder: EncoderRef
) -> tuple[list[Row], np.ndarray[Any, np.dtype[np.float32]]]:
    """VERSION_FACES rows by rising face_id, and their embeddings (N, D) in the same order."""
    primary = {row["photo_sha256"]: row for row in photos if row["status"] == "indexed"}
    uris: dict[str, list[str]] = {}
    for row in photos:
        if row["status"] in {"indexed", "duplicate"}:
            uris.setdefault(row["photo_sha256"], []).append(row["uri"])
    rows: list[Row] = []
    vectors: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    for shard in sorted({row["shard"] for row in primary.values()}):
        ids_S, matrix = read_vectors(storage, encoder=encoder.id, shard=shard, dimension=encoder.dimension)
        at = {identity: n for n, identity in enumerate(ids_S.tolist())}
        columns = [name for name in _SHOWN if name in FACES.names]
        for face in read_faces(storage, contract=contract, shard=shard, columns=columns).to_pylist():
            photo = primary.get(face["photo_sha256"])
            if photo is None or photo["shard"] != shard:
                continue
            extra = {"uri": photo["uri"], "uris": uris[face["photo_sha256"]], "label": photo["label"], "shard": shard}
            rows.append(face | extra)
            if face["face_id"] not in at:
                raise ArtifactError(f"face {face['face_id']} of shard {shard} has no embedding by {encoder.id}")
            vectors.append(matrix[at[face["face_id"]]])
    order = sorted(range(len(rows)), key=lambda n: rows[n]["face_id"])
    stacked = np.stack([vectors[n] for n in order]) if order else np.zeros((0, encoder.dimension), np.float32)
    return [rows[n] for n in order], stacked.astype(np.float32)


def _check_sums(plan: BuildPlan, photos: list[Row], faces: list[Row]) -> None:
    statuses = Counter(row["status"] for row in photos)
    if unknown := set(statuses) - set(STATUSES):
        raise LookalikeError(f"photos have statuses nobody knows: {sorted(unknown)}, wanted {STATUSES}")
    if sum(statuses.values()) > plan.table.rows:
        raise LookalikeError(f"the version lost photos: {plan.table.rows} planned, {sum(statuses.values())} rows")
    found = sum(row["num_faces"] for row in photos if row["status"] == "indexed")
    if found != len(faces):
        raise LookalikeError(
            f"the version lost faces: {found} were found in its photos, {len(faces)} are in its shards"
        )


def _manifest(
    storage: Storage,
    plan: BuildPlan,
    *,
    photos: list[Row],
    ids: list[int],
    files: dict[str, bytes],
    contract: Contract,
    encoder: EncoderRef,
) -> Manifest:
    counts = Counter(row["status"] for row in photos)
    counts["forgotten"] += plan.table.rows - len(photos)
    index = files["index.faiss"]
    return Manifest(
        format=1,
        version=1,  # the number is given when it is published
        parent=plan.parent,
        build=str(uuid.uuid4()),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        sources=list(plan.sources),
        contract=ContractRecord(id=contract.id, settings=_as_json(contract.settings)),
        encoder=EncoderRecord(id=encoder.id, name=encoder.name, dimension=encoder.dimension),
        shards=[
            _shard_record(storage, s, contract=contract.id, encoder=encoder)
            for s in sorted({row["shard"] for row in photos})
        ],
        tombstones=[],
        index=IndexRecord(
            key="Flat",
            metric="inner_product",
            parameters={},
            why=_EXACT,
            change="rebuilt",
            bytes=len(index),
            sha256=sha256_hex(index),
        ),
        files={name: FileRecord(bytes=len(data), sha256=sha256_hex(data)) for name, data in files.items()},
        counts={status: counts.get(status, 0) for status in STATUSES},
        photos=plan.table.rows,
        faces=len(ids),
        metrics=None,
        gate=None,
        calibration=None,
        content_sha256=content_sha256(((r["uri"], r["photo_sha256"], r["status"]) for r in photos), ids),
        labels="folder" if plan.labelled_sources else None,
        labelled_sources=list(plan.labelled_sources),
        requires=[],
        library_versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
    )


def _shard_record(storage: Storage, shard: str, *, contract: str, encoder: EncoderRef) -> ShardRecord:
    photos = storage.read(photos_path(contract, shard))
    faces = storage.read(faces_path(contract, shard))
    embeddings = storage.read(embeddings_path(encoder.id, shard))
    return ShardRecord(
        name=shard,
        photos=read_photos(storage, contract=contract, shard=shard).num_rows,
        faces=read_faces(storage, contract=contract, shard=shard, columns=["face_id"]).num_rows,
        photos_sha256=sha256_hex(photos),
        faces_sha256=sha256_hex(faces),
        embeddings_sha256=sha256_hex(embeddings),
    )


def _table(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back: tuples become lists."""
    return {key: _plain(value) for key, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
