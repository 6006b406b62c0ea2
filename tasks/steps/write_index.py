"""Join shards into the files of a version, under the store's runs/, where nobody reads them yet."""

import importlib.metadata
import uuid
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.content_hash import table_content_sha256
from store.errors import LookalikeError
from store.fingerprints import sha256_hex
from store.layout import embeddings_path, faces_path, open_store, photos_path
from store.manifest import ContractRecord, EncoderRecord, FileRecord, Manifest, ShardRecord
from store.refs import ArtifactRef
from store.schemas import FACES, PHOTOS, PLAN, STATUSES, VERSION_FACES, VERSION_PHOTOS, from_parquet, to_parquet
from store.storage import Storage
from store.versions import PublishedVersion, read_version
from tasks.steps.build_anew import built_anew
from tasks.steps.choose_index import INDEX_FILE, BuiltIndex
from tasks.steps.contract import Contract
from tasks.steps.held_out_queries import HeldOutQueries, held_out_queries
from tasks.steps.held_out_truth import TRUTH_FILE, HeldOut, truth_parquet
from tasks.steps.plan_build import BuildPlan
from tasks.steps.resolve_encoder import EncoderRef
from tasks.steps.stored_faces import open_faces
from tasks.steps.update_index import NextVersion, update_index
from tasks.steps.version_tables import read_before, version_faces, version_photos
from tasks.steps.workroom import workroom

__all__ = ["DRAFT", "write_index"]

DRAFT = "draft.json"
"""The manifest of a version that is not checked yet, beside its files."""

_LIBRARIES = ("faiss-cpu", "numpy", "onnxruntime", "openvino", "pillow", "pillow-heif", "prefect", "pyarrow", "torch")


def write_index(plan: BuildPlan, *, store: str, contract: Contract, encoder: EncoderRef) -> ArtifactRef:
    """Write a version's index, tables and draft manifest under the store's runs/.

    The index is chosen for the faces and the plan's budget.

    Args:
        plan: every shard in it is committed and embedded.
        store: its uri.
        contract: of the shards.
        encoder: of the embeddings.

    Returns:
        The draft manifest; its rows are the faces in the index.

    Raises:
        ArtifactError: a face has no embedding, or one that is none; the message names it.
        VersionError: no index fits into the budget's memory; the message has the figures.
    """
    storage = open_store(store, create=True)
    parent = None if plan.parent is None else read_version(storage, plan.parent)
    before = read_before(storage, parent, contract=contract.id)
    data = storage.read(storage.path_of(plan.table.uri), sha256=plan.table.sha256)
    planned = from_parquet(data, PLAN, where=plan.table.uri)
    photos = version_photos(storage, planned, before, contract=contract.id)
    faces = version_faces(storage, photos, before, contract=contract.id)
    _check_sums(plan, photos, faces)
    same_encoder = before.manifest is not None and before.manifest.encoder.id == encoder.id
    opened = open_faces(
        storage,
        faces,
        encoder=encoder.id,
        dimension=encoder.dimension,
        recorded=before.manifest if same_encoder else None,
    )

    @cache  # a changed copy that will not do has asked for them before
    def queries() -> HeldOutQueries:
        return held_out_queries(storage, faces, contract=contract.id, encoder=encoder.id, purpose="tune")

    wanted = NextVersion(faces, opened, encoder.id, contract.id, plan.budget, queries)
    with workroom(storage) as room:
        built, held = _built(storage, parent, wanted, before.faces, room)
        files = {
            "photos.parquet": to_parquet(photos, VERSION_PHOTOS),
            "faces.parquet": to_parquet(faces, VERSION_FACES),
        }
        if held:
            files[TRUTH_FILE] = truth_parquet(held, dimension=encoder.dimension)
        shards = _shard_records(storage, photos, before.manifest, contract=contract.id, encoder=encoder)
        manifest = _manifest(
            plan,
            photos=photos,
            ids_N=opened.ids,
            shards=shards,
            files=files,
            built=built,
            contract=contract,
            encoder=encoder,
        )
        folder = f"runs/builds/{manifest.build}"
        storage.adopt(f"{folder}/{INDEX_FILE}", built.path)
    for name, content in files.items():
        storage.write(f"{folder}/{name}", content)
    draft = manifest.to_json()
    storage.write(f"{folder}/{DRAFT}", draft)
    return ArtifactRef(uri=storage.uri_of(f"{folder}/{DRAFT}"), sha256=sha256_hex(draft), rows=faces.num_rows)


def _built(
    storage: Storage, parent: PublishedVersion | None, wanted: NextVersion, faces_before: pa.Table, room: Path
) -> tuple[BuiltIndex, tuple[HeldOut, ...]]:
    """A changed copy of the index before, or a new one; and queries with their exact nearest, where it is approximate."""
    updated = update_index(storage, parent, wanted, faces_before=faces_before, folder=room)
    if updated.built is not None:
        return updated.built, updated.held
    return built_anew(wanted.faces, budget=wanted.budget, queries=wanted.queries, why=updated.why, folder=room)


def _counts(plan: BuildPlan, photos: pa.Table) -> dict[str, int]:
    """Photos by status; forgotten are those the plan passed over, and those that shards hold no row of any more."""
    counted = {str(c["values"]): int(c["counts"]) for c in photos["status"].value_counts().to_pylist()}
    if unknown := set(counted) - set(STATUSES):
        raise LookalikeError(f"photos have statuses nobody knows: {sorted(unknown)}, wanted {STATUSES}")
    counts = {status: counted.get(status, 0) for status in STATUSES}
    return counts | {"forgotten": plan.forgotten + plan.table.rows - photos.num_rows}


def _check_sums(plan: BuildPlan, photos: pa.Table, faces: pa.Table) -> None:
    counts = _counts(plan, photos)
    if sum(counts.values()) != plan.table.rows + plan.forgotten:
        raise LookalikeError(
            f"the version lost photos: {plan.table.rows + plan.forgotten} planned, {sum(counts.values())} counted"
        )
    indexed = photos.filter(pc.equal(photos["status"], "indexed"))
    found = pc.sum(indexed["num_faces"]).as_py() or 0
    if found != faces.num_rows:
        raise LookalikeError(
            f"the version lost faces: {found} were found in its photos, {faces.num_rows} are in its shards"
        )


def _manifest(
    plan: BuildPlan,
    *,
    photos: pa.Table,
    ids_N: npt.NDArray[np.int64],
    shards: list[ShardRecord],
    files: dict[str, bytes],
    built: BuiltIndex,
    contract: Contract,
    encoder: EncoderRef,
) -> Manifest:
    counts = _counts(plan, photos)
    return Manifest(
        format=1,
        version=1,  # the number is given when it is published
        parent=plan.parent,
        build=str(uuid.uuid4()),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        sources=list(plan.sources),
        contract=ContractRecord(id=contract.id, settings=_as_json(contract.settings)),
        encoder=EncoderRecord(id=encoder.id, name=encoder.name, dimension=encoder.dimension),
        shards=shards,
        tombstones=[],
        index=built.record(plan.budget),
        files={
            INDEX_FILE: FileRecord(bytes=built.written.bytes, sha256=built.written.sha256),
            **{name: FileRecord(bytes=len(data), sha256=sha256_hex(data)) for name, data in files.items()},
        },
        counts=counts,
        photos=sum(counts.values()),
        faces=len(ids_N),
        metrics=None,
        gate=None,
        calibration=None,
        content_sha256=table_content_sha256(photos, ids_N),
        labels="folder" if plan.labelled_sources else None,
        labelled_sources=list(plan.labelled_sources),
        requires=[],
        library_versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
    )


def _shard_records(
    storage: Storage, photos: pa.Table, before: Manifest | None, *, contract: str, encoder: EncoderRef
) -> list[ShardRecord]:
    """What the manifest says of each shard; what the version before says of one is taken over, for no shard ever changes."""
    known = {shard.name: shard for shard in before.shards} if before else {}
    same_encoder = before is not None and before.encoder.id == encoder.id
    records = []
    for name in sorted(photos["shard"].unique().to_pylist()):
        record = known.get(name) or _shard_record(storage, name, contract=contract, encoder=encoder)
        if name in known and not same_encoder:
            embeddings = sha256_hex(storage.read(embeddings_path(encoder.id, name)))
            record = record.model_copy(update={"embeddings_sha256": embeddings})
        records.append(record)
    return records


def _shard_record(storage: Storage, shard: str, *, contract: str, encoder: EncoderRef) -> ShardRecord:
    paths = (photos_path(contract, shard), faces_path(contract, shard), embeddings_path(encoder.id, shard))
    photos, faces, embeddings = (storage.read(path) for path in paths)
    return ShardRecord(
        name=shard,
        photos=from_parquet(photos, PHOTOS, where=storage.uri_of(paths[0]), columns=["uri"]).num_rows,
        faces=from_parquet(faces, FACES, where=storage.uri_of(paths[1]), columns=["face_id"]).num_rows,
        photos_sha256=sha256_hex(photos),
        faces_sha256=sha256_hex(faces),
        embeddings_sha256=sha256_hex(embeddings),
    )


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back: tuples become lists."""
    return {key: _plain(value) for key, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
