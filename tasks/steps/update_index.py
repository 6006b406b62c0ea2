"""The next version's index as a changed copy of the one before, where the rule in `store/index_change.py` allows it.

N faces, D dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from store.index_change import Change, Drift, reason_to_rebuild, update_in_words
from store.index_choice import Choice, IndexBudget, choose_index
from store.index_edit import edit_index, misfit_of, unevenness_of
from store.index_file import index_bytes, load_index
from store.index_search import SearchSettings
from store.manifest import IndexRecord, TrainingRecord
from store.storage import Storage
from store.versions import PublishedVersion, read_file
from tasks.steps.choose_index import BuiltIndex
from tasks.steps.measure_index import Gallery, Questions, measured_at, tune

__all__ = ["NextVersion", "Updated", "made_anew", "update_index"]

_KEPT_TRIALS = 4  # as many as a build measures; those of updates in between are let go

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NextVersion:
    """What an index is wanted for.

    Attributes:
        faces: face_id and shard, by rising face_id.
        gallery: the same faces with their vectors.
        encoder, contract: ids.
        budget: of the index.
        queries: makes held-out queries, float32 (Q, D); called only where a copy is tried.
    """

    faces: pa.Table
    gallery: Gallery
    encoder: str
    contract: str
    budget: IndexBudget
    queries: Callable[[], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Updated:
    """What came of it.

    Attributes:
        built: the changed copy; None where the index is to be made anew.
        why: it is made anew, as a clause; empty where it is not.
    """

    built: BuiltIndex | None
    why: str


@dataclass(frozen=True)
class _Delta:
    """Who comes and goes: added, removed, and those whose embedding stands in another shard than before, all int64, ascending."""

    added: Ints
    removed: Ints
    moved: Ints


def update_index(
    storage: Storage,
    parent: PublishedVersion | None,
    wanted: NextVersion,
    *,
    faces_before: pa.Table,
) -> Updated:
    """A copy of the parent's index with the faces changed, measured as a new one would be; or why it takes a new one.

    Args:
        storage: the store.
        parent: the version before, if there is one.
        wanted: the next version.
        faces_before: face_id and shard of the version before, by rising face_id; none where its contract is another.

    Raises:
        ArtifactError: the parent's index is not what its manifest says, or a vector is none.
        VersionError: no index fits into the budget's memory.
    """
    choice = choose_index(len(wanted.gallery.ids), wanted.gallery.vectors.shape[1], wanted.budget)
    if parent is None:
        return Updated(None, "")
    delta = _delta(faces_before, wanted.faces)
    change = _change(parent, delta, wanted)
    if why := reason_to_rebuild(change, choice):
        return Updated(None, why)
    return _tried(storage, parent, change, choice, delta, wanted)


def made_anew(built: BuiltIndex, why: str) -> BuiltIndex:
    """A new index that says why it is one, where it is approximate and follows another."""
    return replace(built, why=f"{built.why}; made anew: {why}") if built.measured and why else built


def _tried(
    storage: Storage,
    parent: PublishedVersion,
    change: Change,
    choice: Choice,
    delta: _Delta,
    wanted: NextVersion,
) -> Updated:
    gallery, budget = wanted.gallery, wanted.budget
    record = parent.manifest.index
    index = load_index(read_file(storage, parent, "index.faiss"), where=f"version {parent.number}'s index")
    trained = record.trained or _trained_now(index, parent, gallery, delta)
    coming = np.union1d(delta.added, delta.moved)
    rows = np.searchsorted(gallery.ids, coming)
    edit_index(
        index, removed_R=np.union1d(delta.removed, delta.moved), added_A=coming, vectors_AD=gallery.vectors[rows]
    )
    asked = Questions.of(wanted.queries(), gallery)
    best = measured_at(index, asked, SearchSettings.of(record.parameters))
    points = [best]
    if best.least < budget.recall:
        best, points = tune(index, asked, recall=budget.recall)
    drift = Drift(
        unevenness_then=trained.unevenness,
        unevenness_now=unevenness_of(index),
        misfit_then=trained.misfit,
        misfit_now=misfit_of(index, gallery.vectors) or 0.0,
        recall_then=trained.recall_at_10,
        recall=best.recall,
        least=best.least,
        wanted=budget.recall,
    )
    if why := reason_to_rebuild(change, choice, drift):
        return Updated(None, why)
    candidate = next(one for one in choice.candidates if one.kind == change.kind)
    tried: dict[str, Any] = {"kind": candidate.kind, "key": record.key, "faces": len(gallery.ids)}
    tried |= {"memory_bytes": candidate.memory_bytes, "points": [point.as_json() for point in points]}
    built = BuiltIndex(
        index_bytes(index),
        record.key,
        {"kind": change.kind, **best.settings.as_json()},
        f"{trained.why}; updated: {update_in_words(change, drift)}",
        (tried, *record.measured[-_KEPT_TRIALS:]),
        change="updated",
        trained=trained.model_copy(update={"changed": change.changed}),
    )
    return Updated(built, "")


def _change(parent: PublishedVersion, delta: _Delta, wanted: NextVersion) -> Change:
    manifest = parent.manifest
    trained = manifest.index.trained
    return Change(
        parent=parent.number,
        kind=manifest.index.parameters.get("kind", "exact"),
        same_encoder=manifest.encoder.id == wanted.encoder,
        same_contract=manifest.contract.id == wanted.contract,
        same_budget=IndexBudget.of(manifest.index.budget) == wanted.budget,
        trained_faces=trained.faces if trained else manifest.faces,
        changed_before=trained.changed if trained else 0,
        added=len(delta.added),
        removed=len(delta.removed),
    )


def _trained_now(index: Any, parent: PublishedVersion, gallery: Gallery, delta: _Delta) -> TrainingRecord:
    """Of an index that was made anew for its version: it was trained on the faces that it holds."""
    stay = ~np.isin(gallery.ids, delta.added)
    return TrainingRecord(
        faces=parent.manifest.faces,
        changed=0,
        unevenness=unevenness_of(index),
        misfit=misfit_of(index, gallery.vectors[stay]) or 0.0,
        recall_at_10=_recall_when_tuned(parent.manifest.index),
        why=parent.manifest.index.why,
    )


def _recall_when_tuned(record: IndexRecord) -> float | None:
    """Of the settings that were chosen for the whole gallery."""
    settings = SearchSettings.of(record.parameters).as_json().items()
    points = [
        point
        for one in record.measured[:_KEPT_TRIALS]
        if one.get("key") == record.key
        for point in one.get("points", [])
        if settings <= point.items()
    ]
    return float(points[0]["recall_at_10"]) if points else None


def _delta(before: pa.Table, after: pa.Table) -> _Delta:
    old, new = (table["face_id"].to_numpy() for table in (before, after))
    stay, at_old, at_new = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    old_shards = before["shard"].take(pa.array(at_old)).to_numpy()
    moved = stay[old_shards != after["shard"].take(pa.array(at_new)).to_numpy()]
    return _Delta(added=np.setdiff1d(new, old), removed=np.setdiff1d(old, new), moved=moved)
