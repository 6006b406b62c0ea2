"""Read a drafted version back as a stranger would, measure its index, calibrate its scores, and write its report."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from store.content_hash import table_content_sha256
from store.errors import GateRefusedError, VersionError
from store.fingerprints import sha256_hex
from store.index_choice import IndexBudget
from store.index_file import index_size, indexed_ids
from store.index_search import SearchSettings
from store.layout import open_store
from store.manifest import CHANGES, FileRecord, Manifest
from store.refs import ArtifactRef
from store.schemas import VERSION_FACES, VERSION_PHOTOS, to_parquet
from store.storage import Storage
from store.version_files import FACES_FILE, INDEX_FILE, OF_CHANGES, PHOTOS_FILE, VersionFiles
from store.version_index import open_index_of
from store.versions import read_manifest
from tasks.steps.build_anew import built_anew, with_index
from tasks.steps.calibrate_version import calibrate_version
from tasks.steps.draft_version import DRAFT, files_of_draft
from tasks.steps.face_blocks import FaceBlocks, Gallery
from tasks.steps.held_out_queries import HeldOutQueries, held_out_queries
from tasks.steps.held_out_truth import TRUTH_FILE, HeldOut, read_truth, searched, truth_parquet
from tasks.steps.prove_index import pass_gate, prove_approximate, prove_exact
from tasks.steps.report import write_report
from tasks.steps.stored_faces import open_faces
from tasks.steps.workroom import workroom

__all__ = ["CheckedVersion", "check_version"]

_OF_A_PHOTO = ["uri", "photo_sha256", "status", "reason", "label", "width", "height"]
_NOBODY = Gallery(np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
_OF_A_FACE = ["face_id", "photo_sha256", "box", "score", "label", "shard"]


@dataclass(frozen=True)
class CheckedVersion:
    """A draft that holds what it says.

    Attributes:
        draft: its manifest, now with metrics and gate.
        recall_at_10: against exact search, in [0, 1]; None when the index is empty.
    """

    draft: ArtifactRef
    recall_at_10: float | None


class _Faces:
    """The faces of a draft, as far as they are asked for.

    Args:
        files: of the draft.
    """

    def __init__(self, files: VersionFiles) -> None:
        self._files = files

    @cached_property
    def table(self) -> pa.Table:
        """What tells whose they are, where in the photo they stand, and in which shard."""
        return self._files.faces(_OF_A_FACE)

    @cached_property
    def opened(self) -> FaceBlocks:
        """With their vectors."""
        manifest = self._files.manifest
        return open_faces(
            self._files.storage,
            self.table,
            encoder=manifest.encoder.id,
            dimension=manifest.encoder.dimension,
            recorded=manifest,
        )


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
    files = files_of_draft(storage, folder, manifest)
    with ThreadPoolExecutor(2, thread_name_prefix="read-draft") as beside:
        opening, reading = beside.submit(open_index_of, files, known=True), beside.submit(files.photos, _OF_A_PHOTO)
        told = files.faces(["face_id", "label"])
        photos, index = reading.result(), opening.result()
        hashing = beside.submit(table_content_sha256, photos, told["face_id"].to_numpy())
        _check_counts(manifest, told, photos, index_size(index))
        _check_faces(told, index)
        faces = _Faces(files)
        manifest, metrics, gate = _proven(files, folder, index, faces, device)
        _check_content(manifest, hashing.result())
    nobody = told["label"].null_count == told.num_rows
    calibration = calibrate_version(
        storage,
        manifest,
        faces=VERSION_FACES.empty_table() if nobody else faces.table,
        photos=photos,
        opened=_NOBODY if nobody else faces.opened,
    )
    measured = manifest.model_copy(update={"metrics": metrics, "gate": gate, "calibration": calibration})
    return CheckedVersion(
        draft=_with_report(storage, folder, measured, told, photos), recall_at_10=metrics["recall_at_10"]
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


def _check_faces(faces: pa.Table, index: Any) -> None:
    if not np.array_equal(indexed_ids(index), faces.column("face_id").to_numpy()):
        raise VersionError("the index holds other faces than faces.parquet; nothing was published")


def _check_content(manifest: Manifest, got: str) -> None:
    if got != manifest.content_sha256:
        raise VersionError(
            f"the tables have the content {got[:12]}…, the manifest says {manifest.content_sha256[:12]}…; nothing was published"
        )


def _proven(
    files: VersionFiles, folder: str, index: Any, faces: _Faces, device: str
) -> tuple[Manifest, dict[str, Any], dict[str, Any]]:
    """The manifest, its metrics and its gate; a changed index that does not pass is made anew and asked again."""
    storage = files.storage
    manifest, metrics = _metrics(storage, folder, files.manifest, index, faces, device)
    try:
        return manifest, metrics, pass_gate(metrics, key=manifest.index.key)
    except GateRefusedError:
        if manifest.index.change != "updated":
            raise
    with workroom(storage) as room:
        built, held = built_anew(
            faces.opened,
            budget=IndexBudget.of(manifest.index.budget),
            queries=lambda: _queries(storage, manifest, faces.table, "tune"),
            why=f"recall@10 of the changed one was {metrics['recall_at_10']:.3f} at the gate",
            folder=room,
            device=device,
        )
        storage.adopt(f"{folder}/{INDEX_FILE}", built.path)
    manifest = _with_truth(storage, folder, with_index(_standing_whole(files, folder), built), held)
    index = open_index_of(files_of_draft(storage, folder, manifest), known=True)
    manifest, metrics = _metrics(storage, folder, manifest, index, faces, device)
    return manifest, metrics, pass_gate(metrics, key=manifest.index.key)


def _standing_whole(files: VersionFiles, folder: str) -> Manifest:
    """The draft's manifest with tables that stand whole, in the draft's folder."""
    manifest = files.manifest
    if manifest.changes is None:
        return manifest
    records = {name: record for name, record in manifest.files.items() if name not in OF_CHANGES}
    for name, table, schema in (
        (PHOTOS_FILE, files.photos(), VERSION_PHOTOS),
        (FACES_FILE, files.faces(), VERSION_FACES),
    ):
        data = to_parquet(table, schema)
        files.storage.write(f"{folder}/{name}", data)
        records[name] = FileRecord(bytes=len(data), sha256=sha256_hex(data))
    requires = [one for one in manifest.requires if one != CHANGES]
    return manifest.model_copy(update={"files": records, "changes": None, "requires": requires})


def _metrics(
    storage: Storage, folder: str, manifest: Manifest, index: Any, faces: _Faces, device: str
) -> tuple[Manifest, dict[str, Any]]:
    """What the index is worth, and the manifest, which names the gate's queries with their truth from now on.

    Only an approximate one pays for queries that are embedded anew, and only where none were carried on from the version before.
    """
    if not manifest.faces:
        return manifest, {"recall_at_10": None}
    if manifest.index.key == "Flat":
        return manifest, prove_exact(index, faces.opened, device=device)
    held = _truth(storage, folder, manifest)
    if "gate" not in held:
        held["gate"] = searched("gate", _queries(storage, manifest, faces.table, "gate"), faces.opened, device=device)
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
