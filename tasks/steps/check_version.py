"""Read a drafted version back as a stranger would, measure its index, calibrate its scores, and write its report."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from store.content_hash import table_content_sha256
from store.errors import ArtifactError, GateRefusedError, VersionError
from store.fingerprints import sha256_hex
from store.index_choice import IndexBudget
from store.index_file import index_size, indexed_ids
from store.index_search import SearchSettings
from store.index_trial import open_mapped
from store.layout import open_store
from store.manifest import FileRecord, Manifest
from store.refs import ArtifactRef
from store.schemas import VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.storage import Storage
from store.verified_files import verified_file
from store.versions import read_manifest
from tasks.steps.build_anew import built_anew, with_index
from tasks.steps.calibrate_version import calibrate_version
from tasks.steps.face_blocks import FaceBlocks
from tasks.steps.fill_index import INDEX_FILE
from tasks.steps.held_out_queries import HeldOutQueries, held_out_queries
from tasks.steps.held_out_truth import TRUTH_FILE, HeldOut, read_truth, searched, truth_parquet
from tasks.steps.prove_index import pass_gate, prove_approximate, prove_exact
from tasks.steps.report import write_report
from tasks.steps.stored_faces import open_faces
from tasks.steps.workroom import workroom
from tasks.steps.write_index import DRAFT

__all__ = ["CheckedVersion", "check_version"]


@dataclass(frozen=True)
class CheckedVersion:
    """A draft that holds what it says.

    Attributes:
        draft: its manifest, now with metrics and gate.
        recall_at_10: against exact search, in [0, 1]; None when the index is empty.
    """

    draft: ArtifactRef
    recall_at_10: float | None


def check_version(draft: ArtifactRef, *, store: str, device: str = "cpu") -> CheckedVersion:
    """Check a draft's files, counts and index; nothing is published when one does not hold.

    No query for recall is in the index as it stands, nor did the index's settings come from it; the truth is a plain matrix product
    over the shards' embeddings.

    Args:
        draft: its manifest.
        store: its uri.
        device: as of `index_device`, where exact neighbours are found.

    Raises:
        ArtifactError: a file is not what the draft says.
        GateRefusedError: recall is below the gate; the message has the figures.
        VersionError: counts disagree; the message has the figures.
    """
    storage = open_store(store)
    folder = str(PurePosixPath(storage.path_of(draft.uri)).parent)
    manifest = read_manifest(storage, storage.path_of(draft.uri))
    with ThreadPoolExecutor(1, thread_name_prefix="hash-index") as beside:
        opening = beside.submit(_opened, storage, folder, manifest)
        faces, photos = (
            from_parquet(storage.read(f"{folder}/{name}", sha256=manifest.files[name].sha256), schema, where=name)
            for name, schema in (("faces.parquet", VERSION_FACES), ("photos.parquet", VERSION_PHOTOS))
        )
        content_sha256 = table_content_sha256(photos, faces["face_id"].to_numpy())
        index = opening.result()
    _check_counts(manifest, faces, photos, index_size(index))
    _check_content(manifest, faces, content_sha256, index)
    opened = open_faces(
        storage, faces, encoder=manifest.encoder.id, dimension=manifest.encoder.dimension, recorded=manifest
    )
    manifest, metrics, gate = _proven(storage, folder, manifest, index, faces, opened, device)
    calibration = calibrate_version(storage, manifest, faces=faces, photos=photos, opened=opened)
    measured = manifest.model_copy(update={"metrics": metrics, "gate": gate, "calibration": calibration})
    return CheckedVersion(
        draft=_with_report(storage, folder, measured, faces, photos), recall_at_10=metrics["recall_at_10"]
    )


def _check_counts(manifest: Manifest, faces: pa.Table, photos: pa.Table, size: tuple[int, int]) -> None:
    counted = {one["values"]: one["counts"] for one in photos.column("status").value_counts().to_pylist()}
    for what, got, wanted in (
        ("vectors in the index", size[0], manifest.faces),
        ("dimensions of the index", size[1], manifest.encoder.dimension),
        ("rows of faces.parquet", faces.num_rows, manifest.faces),
        ("rows of photos.parquet", photos.num_rows, manifest.photos - manifest.counts.get("forgotten", 0)),
        *((f"photos {s}", counted.get(s, 0), count) for s, count in manifest.counts.items() if s != "forgotten"),
    ):
        if got != wanted:
            raise VersionError(
                f"the draft does not add up: {got} {what}, the manifest says {wanted}; nothing was published"
            )


def _check_content(manifest: Manifest, faces: pa.Table, got: str, index: Any) -> None:
    ids_N = faces.column("face_id").to_numpy()
    if not np.array_equal(indexed_ids(index), ids_N):
        raise VersionError("the index holds other faces than faces.parquet; nothing was published")
    if got != manifest.content_sha256:
        raise VersionError(
            f"the tables have the content {got[:12]}…, the manifest says {manifest.content_sha256[:12]}…; nothing was published"
        )


def _opened(storage: Storage, folder: str, manifest: Manifest) -> Any:
    """The draft's index, mapped."""
    path, record = f"{folder}/{INDEX_FILE}", manifest.files[INDEX_FILE]
    local = verified_file(storage, path, sha256=record.sha256, size=record.bytes)
    try:
        return open_mapped(str(local))
    except ValueError as error:
        raise ArtifactError(f"{storage.uri_of(path)} is not an index that can be asked: {error}") from error


def _proven(
    storage: Storage, folder: str, manifest: Manifest, index: Any, faces: pa.Table, opened: FaceBlocks, device: str
) -> tuple[Manifest, dict[str, Any], dict[str, Any]]:
    """The manifest, its metrics and its gate; a changed copy of the index before that does not pass is made anew and asked again."""
    manifest, metrics = _metrics(storage, folder, manifest, index, faces, opened, device)
    try:
        return manifest, metrics, pass_gate(metrics, key=manifest.index.key)
    except GateRefusedError:
        if manifest.index.change != "updated":
            raise
    with workroom(storage) as room:
        built, held = built_anew(
            opened,
            budget=IndexBudget.of(manifest.index.budget),
            queries=lambda: _queries(storage, manifest, faces, "tune"),
            why=f"recall@10 of the changed one was {metrics['recall_at_10']:.3f} at the gate",
            folder=room,
            device=device,
        )
        storage.adopt(f"{folder}/{INDEX_FILE}", built.path)
    manifest = _with_truth(storage, folder, with_index(manifest, built), held)
    manifest, metrics = _metrics(storage, folder, manifest, _opened(storage, folder, manifest), faces, opened, device)
    return manifest, metrics, pass_gate(metrics, key=manifest.index.key)


def _metrics(
    storage: Storage, folder: str, manifest: Manifest, index: Any, faces: pa.Table, opened: FaceBlocks, device: str
) -> tuple[Manifest, dict[str, Any]]:
    """What the index is worth, and the manifest, which names the gate's queries with their truth from now on.

    Only an approximate one pays for queries that are embedded anew, and only where none were carried on from the version before.
    """
    if not len(opened.ids):
        return manifest, {"recall_at_10": None}
    if manifest.index.key == "Flat":
        return manifest, prove_exact(index, opened, device=device)
    held = _truth(storage, folder, manifest)
    if "gate" not in held:
        held["gate"] = searched("gate", _queries(storage, manifest, faces, "gate"), opened, device=device)
        manifest = _with_truth(storage, folder, manifest, tuple(held.values()))
    return manifest, prove_approximate(index, held["gate"], SearchSettings.of(manifest.index.parameters))


def _queries(storage: Storage, manifest: Manifest, faces: pa.Table, purpose: Literal["tune", "gate"]) -> HeldOutQueries:
    contract, encoder = manifest.contract.id, manifest.encoder.id
    return held_out_queries(storage, faces, contract=contract, encoder=encoder, purpose=purpose)


def _truth(storage: Storage, folder: str, manifest: Manifest) -> dict[str, HeldOut]:
    path = f"{folder}/{TRUTH_FILE}"
    data = storage.read(path, sha256=manifest.files[TRUTH_FILE].sha256)
    return read_truth(data, dimension=manifest.encoder.dimension, where=storage.uri_of(path))


def _with_truth(storage: Storage, folder: str, manifest: Manifest, held: tuple[HeldOut, ...]) -> Manifest:
    """The manifest with these queries, as they stand in the draft's folder; without any where there are none."""
    others = {name: record for name, record in manifest.files.items() if name != TRUTH_FILE}
    if not held:
        return manifest.model_copy(update={"files": others})
    data = truth_parquet(held, dimension=manifest.encoder.dimension)
    storage.write(f"{folder}/{TRUTH_FILE}", data)
    record = FileRecord(bytes=len(data), sha256=sha256_hex(data))
    return manifest.model_copy(update={"files": {**others, TRUTH_FILE: record}})


def _with_report(storage: Storage, folder: str, manifest: Manifest, faces: pa.Table, photos: pa.Table) -> ArtifactRef:
    report = write_report(manifest, faces=faces, photos=photos)
    storage.write(f"{folder}/report.html", report)
    record = FileRecord(bytes=len(report), sha256=sha256_hex(report))
    complete = manifest.model_copy(update={"files": {**manifest.files, "report.html": record}})
    data = complete.to_json()
    storage.write(f"{folder}/{DRAFT}", data)
    return ArtifactRef(uri=storage.uri_of(f"{folder}/{DRAFT}"), sha256=sha256_hex(data), rows=manifest.faces)
