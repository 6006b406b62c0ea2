"""Read a drafted version back as a stranger would, measure its index, calibrate its scores, and write its report."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from store.errors import ArtifactError, GateRefusedError, VersionError
from store.fingerprints import content_sha256, sha256_hex
from store.index_file import index_size, indexed_ids, load_index
from store.index_search import SearchSettings
from store.layout import open_store
from store.manifest import FileRecord, Manifest
from store.refs import ArtifactRef
from store.schemas import VERSION_FACES, VERSION_PHOTOS, from_parquet
from store.shards import read_vectors
from store.storage import Storage
from store.versions import read_manifest
from tasks.steps.calibrate_version import calibrate_version
from tasks.steps.held_out_queries import held_out_queries
from tasks.steps.measure_index import Gallery
from tasks.steps.prove_index import pass_gate, prove_approximate, prove_exact
from tasks.steps.rebuild_index import rebuild_index
from tasks.steps.report import write_report
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


def check_version(draft: ArtifactRef, *, store: str) -> CheckedVersion:
    """Check a draft's files, counts and index; nothing is published when one does not hold.

    No query for recall is in the index as it stands, nor did the index's settings come from it; the truth is a plain matrix product
    over the shards' embeddings.

    Raises:
        ArtifactError: a file is not what the draft says.
        GateRefusedError: recall is below the gate; the message has the figures.
        VersionError: counts disagree; the message has the figures.
    """
    storage = open_store(store)
    folder = str(PurePosixPath(storage.path_of(draft.uri)).parent)
    manifest = read_manifest(storage, storage.path_of(draft.uri))
    data = {name: storage.read(f"{folder}/{name}", sha256=r.sha256) for name, r in manifest.files.items()}
    index = load_index(data["index.faiss"], where=f"{folder}/index.faiss")
    faces = from_parquet(data["faces.parquet"], VERSION_FACES, where="faces.parquet")
    photos = from_parquet(data["photos.parquet"], VERSION_PHOTOS, where="photos.parquet")
    _check_counts(manifest, faces, photos, index_size(index))
    _check_content(manifest, faces, photos, index)
    ids_N, embeddings_ND = _embeddings(storage, manifest, faces)
    manifest, metrics, gate = _proven(storage, folder, manifest, index, faces, Gallery(ids_N, embeddings_ND))
    calibration = calibrate_version(
        storage, manifest, faces=faces, photos=photos, ids_N=ids_N, embeddings_ND=embeddings_ND
    )
    measured = manifest.model_copy(update={"metrics": metrics, "gate": gate, "calibration": calibration})
    return CheckedVersion(
        draft=_with_report(storage, folder, measured, faces, photos), recall_at_10=metrics["recall_at_10"]
    )


def _check_counts(manifest: Manifest, faces: pa.Table, photos: pa.Table, size: tuple[int, int]) -> None:
    statuses = photos.column("status").to_pylist()
    for what, got, wanted in (
        ("vectors in the index", size[0], manifest.faces),
        ("dimensions of the index", size[1], manifest.encoder.dimension),
        ("rows of faces.parquet", faces.num_rows, manifest.faces),
        ("rows of photos.parquet", photos.num_rows, manifest.photos - manifest.counts.get("forgotten", 0)),
        *((f"photos {s}", statuses.count(s), count) for s, count in manifest.counts.items() if s != "forgotten"),
    ):
        if got != wanted:
            raise VersionError(
                f"the draft does not add up: {got} {what}, the manifest says {wanted}; nothing was published"
            )


def _check_content(manifest: Manifest, faces: pa.Table, photos: pa.Table, index: Any) -> None:
    ids_N = faces.column("face_id").to_numpy()
    if not np.array_equal(indexed_ids(index), ids_N):
        raise VersionError("the index holds other faces than faces.parquet; nothing was published")
    rows = zip(*(photos.column(name).to_pylist() for name in ("uri", "photo_sha256", "status")), strict=True)
    if (got := content_sha256(rows, ids_N.tolist())) != manifest.content_sha256:
        raise VersionError(
            f"the tables have the content {got[:12]}…, the manifest says {manifest.content_sha256[:12]}…; nothing was published"
        )


def _embeddings(
    storage: Storage, manifest: Manifest, faces: pa.Table
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Every face's id and vector, read from the shards again, by rising id."""
    wanted = faces.column("face_id").to_numpy()
    dimension = manifest.encoder.dimension
    ids: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    vectors: list[npt.NDArray[np.float32]] = [np.zeros((0, dimension), np.float32)]
    for shard in manifest.shards:
        ids_S, embeddings_SD = read_vectors(storage, encoder=manifest.encoder.id, shard=shard.name, dimension=dimension)
        ids.append(ids_S)
        vectors.append(embeddings_SD)
    all_ids, first = np.unique(np.concatenate(ids), return_index=True)
    chosen = np.isin(all_ids, wanted)
    if int(chosen.sum()) != len(wanted):
        raise ArtifactError(f"{len(wanted) - int(chosen.sum())} faces of the draft have no embedding in its shards")
    return all_ids[chosen], np.concatenate(vectors)[first[chosen]]


def _proven(
    storage: Storage, folder: str, manifest: Manifest, index: Any, faces: pa.Table, gallery: Gallery
) -> tuple[Manifest, dict[str, Any], dict[str, Any]]:
    """The manifest, its metrics and its gate; a changed copy of the index before that does not pass is made anew and asked again."""
    metrics = _metrics(storage, manifest, index, faces, gallery)
    try:
        return manifest, metrics, pass_gate(metrics, key=manifest.index.key)
    except GateRefusedError:
        if manifest.index.change != "updated":
            raise
    manifest, data = rebuild_index(
        storage,
        folder,
        manifest,
        gallery,
        queries=lambda: held_out_queries(
            storage, faces, contract=manifest.contract.id, encoder=manifest.encoder.id, purpose="tune"
        ),
        why=f"recall@10 of the changed one was {metrics['recall_at_10']:.3f} at the gate",
    )
    metrics = _metrics(storage, manifest, load_index(data, where=f"{folder}/index.faiss"), faces, gallery)
    return manifest, metrics, pass_gate(metrics, key=manifest.index.key)


def _metrics(storage: Storage, manifest: Manifest, index: Any, faces: pa.Table, gallery: Gallery) -> dict[str, Any]:
    """What the index is worth; only an approximate one pays for queries that are embedded anew."""
    if not len(gallery.ids):
        return {"recall_at_10": None}
    if manifest.index.key == "Flat":
        return prove_exact(index, gallery)
    queries_QD = held_out_queries(
        storage, faces, contract=manifest.contract.id, encoder=manifest.encoder.id, purpose="gate"
    )
    return prove_approximate(index, gallery, SearchSettings.of(manifest.index.parameters), queries_QD)


def _with_report(storage: Storage, folder: str, manifest: Manifest, faces: pa.Table, photos: pa.Table) -> ArtifactRef:
    report = write_report(manifest, faces=faces, photos=photos)
    storage.write(f"{folder}/report.html", report)
    record = FileRecord(bytes=len(report), sha256=sha256_hex(report))
    complete = manifest.model_copy(update={"files": {**manifest.files, "report.html": record}})
    data = complete.to_json()
    storage.write(f"{folder}/{DRAFT}", data)
    return ArtifactRef(uri=storage.uri_of(f"{folder}/{DRAFT}"), sha256=sha256_hex(data), rows=manifest.faces)
