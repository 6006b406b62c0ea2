"""The next version's index as a changed copy of the one before, where the rule in `store/index_change.py` allows it.

N faces, D dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.index_change import Change, Drift, reason_to_rebuild, update_in_words
from store.index_choice import Choice, IndexBudget, choose_index
from store.index_edit import edit_index, misfit_of, unevenness_of
from store.index_search import SearchSettings, search
from store.index_stream import WrittenIndex
from store.index_trial import open_mapped
from store.manifest import FileRecord, IndexRecord, TrainingRecord
from store.storage import Storage
from store.verified_files import verified_file
from store.version_files import INDEX_FILE, files_of
from store.version_index import open_index_of
from store.versions import PublishedVersion, read_file
from tasks.steps.face_blocks import FaceBlocks
from tasks.steps.fill_index import BuiltIndex
from tasks.steps.held_out_queries import HeldOutQueries
from tasks.steps.held_out_truth import TRUTH_FILE, Changed, HeldOut, carried, read_truth, searched
from tasks.steps.measure_index import measured_at, tune

__all__ = [
    "FaceDelta",
    "NextVersion",
    "Successor",
    "Updated",
    "WrittenCopy",
    "carried_on",
    "change_of",
    "face_delta",
    "judge",
    "made_anew",
    "successor",
    "update_index",
]

_KEPT_TRIALS = 4  # as many as a build measures; those of updates in between are let go
_ASKED_FOR = 64  # of the added

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NextVersion:
    """What an index is wanted for.

    Attributes:
        table: face_id and shard, by rising face_id.
        faces: the same faces with their vectors.
        encoder, contract: ids.
        budget: of the index.
        queries: makes held-out queries to tune with; called only where the version before has none that will do.
        device: as of `index_device`, where their exact neighbours are found.
    """

    table: pa.Table
    faces: FaceBlocks
    encoder: str
    contract: str
    budget: IndexBudget
    queries: Callable[[], HeldOutQueries]
    device: str = "cpu"


@dataclass(frozen=True)
class Updated:
    """What came of it.

    Attributes:
        built: the changed copy; None where the index is to be made anew.
        why: it is made anew, as a clause; empty where it is not.
        held: queries with their exact nearest, carried on from the version before or searched anew.
    """

    built: BuiltIndex | None
    why: str
    held: tuple[HeldOut, ...] = ()


@dataclass(frozen=True)
class Successor:
    """What a changed copy of an index is to be.

    Attributes:
        record: of the index before.
        trained: what that was trained on.
        change: what the next version asks of it.
        choice: of kinds, for the next version.
        budget: of the index.
        faces: of the next version.
    """

    record: IndexRecord
    trained: TrainingRecord
    change: Change
    choice: Choice
    budget: IndexBudget
    faces: int


@dataclass(frozen=True)
class FaceDelta:
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
    folder: Path,
) -> Updated:
    """A copy of the parent's index with the faces changed, measured as a new one would be; or why it takes a new one.

    Args:
        storage: the store.
        parent: the version before, if there is one.
        wanted: the next version.
        faces_before: face_id and shard of the version before, by rising face_id; none where its contract is another.
        folder: of this machine, where the copy is made.

    Raises:
        ArtifactError: the parent's index is not what its manifest says, or a vector is none.
        VersionError: no index fits into the budget's memory.
    """
    choice = choose_index(len(wanted.faces.ids), wanted.faces.dimension, wanted.budget)
    if parent is None:
        return Updated(None, "")
    delta = face_delta(faces_before, wanted.table)
    same = (parent.manifest.encoder.id == wanted.encoder, parent.manifest.contract.id == wanted.contract)
    change = change_of(parent, same, wanted.budget, added=len(delta.added), removed=len(delta.removed))
    if why := reason_to_rebuild(change, choice):
        return Updated(None, why)
    asked = successor(parent, change, choice, wanted.budget, faces=len(wanted.faces.ids))
    return _tried(storage, parent, asked, delta, wanted, folder)


def made_anew(built: BuiltIndex, why: str) -> BuiltIndex:
    """A new index that says why it is one, where it is approximate and follows another."""
    return replace(built, why=f"{built.why}; made anew: {why}") if built.measured and why else built


def _tried(
    storage: Storage, parent: PublishedVersion, asked: Successor, delta: FaceDelta, wanted: NextVersion, folder: Path
) -> Updated:
    faces, record = wanted.faces, parent.manifest.index
    came, gone = np.union1d(delta.added, delta.moved), np.union1d(delta.removed, delta.moved)
    changed = Changed(gone, came, faces.take(np.searchsorted(faces.ids, came)))
    source = verified_file(storage, parent.path_of(INDEX_FILE), sha256=record.sha256, size=record.bytes)
    since = changed
    if parent.manifest.changes is not None:  # the copy is of its base
        before = open_index_of(files_of(storage, parent))
        came = np.union1d(np.setdiff1d(before.added_ids, gone), came)
        gone = np.union1d(before.left, np.setdiff1d(gone, before.added_ids))
        since = Changed(gone, came, faces.take(np.searchsorted(faces.ids, came)))
    target = folder / INDEX_FILE
    written = edit_index(source, target, removed_R=since.gone, added_A=since.came, vectors_AD=since.vectors)
    held = carried_on(storage, parent, changed, faces=len(faces.ids))
    if held is None:
        held = (searched("tune", wanted.queries(), faces, device=wanted.device),)
    return judge(open_mapped(str(target)), asked, changed, held, WrittenCopy(target, written))


@dataclass(frozen=True)
class WrittenCopy:
    """Where a changed index was written, and what the base is that it is kept as changes to; None where it stands whole."""

    path: Path
    written: WrittenIndex
    base: FileRecord | None = None


def judge(index: Any, asked: Successor, changed: Changed, held: tuple[HeldOut, ...], copy: WrittenCopy) -> Updated:
    """A changed index measured as a new one would be, and taken; or why it takes a new one.

    Args:
        index: opened.
        asked: what it is to follow, and for whom.
        changed: who came and went since the version before.
        held: queries with their exact nearest as they are now; the first are those to tune with.
        copy: where it lies.
    """
    record, trained, change, budget = asked.record, asked.trained, asked.change, asked.budget
    questions = held[0].questions()
    best = measured_at(index, questions, SearchSettings.of(record.parameters))
    points = [best]
    if best.least < budget.recall:
        best, points = tune(index, questions, recall=budget.recall)
    drift = Drift(
        unevenness_then=trained.unevenness,
        unevenness_now=unevenness_of(index),
        misfit_then=trained.misfit,
        misfit_now=_misfit_now(index, trained, changed.vectors, total=asked.faces),
        recall_then=trained.recall_at_10,
        recall=best.recall,
        least=best.least,
        wanted=budget.recall,
        added_found=_found(index, changed, best.settings),
    )
    if why := reason_to_rebuild(change, asked.choice, drift):
        return Updated(None, why)
    candidate = next(one for one in asked.choice.candidates if one.kind == change.kind)
    tried: dict[str, Any] = {"kind": candidate.kind, "key": record.key, "faces": asked.faces}
    tried |= {"memory_bytes": candidate.memory_bytes, "points": [point.as_json() for point in points]}
    built = BuiltIndex(
        copy.path,
        copy.written,
        record.key,
        {"kind": change.kind, **best.settings.as_json()},
        f"{trained.why}; updated: {update_in_words(change, drift, as_changes=copy.base is not None)}",
        (tried, *record.measured[-_KEPT_TRIALS:]),
        change="updated",
        trained=trained.model_copy(update={"changed": change.changed, "misfit_now": drift.misfit_now}),
        base=copy.base,
    )
    return Updated(built, "", held)


def carried_on(
    storage: Storage, parent: PublishedVersion, changed: Changed, *, faces: int
) -> tuple[HeldOut, ...] | None:
    """The parent's queries to tune with and those of the gate, with their nearest now; None where those of one of them are not enough.

    Args:
        storage: the store.
        parent: the version before.
        changed: who came and went since.
        faces: how many there are now.
    """
    if TRUTH_FILE not in parent.manifest.files:
        return None
    where = f"version {parent.number}'s {TRUTH_FILE}"
    dimension = parent.manifest.encoder.dimension
    before = read_truth(read_file(storage, parent, TRUTH_FILE), dimension=dimension, where=where)
    after = [carried(before[one], changed, faces=faces) for one in ("tune", "gate") if one in before]
    held = tuple(one for one in after if one is not None)
    return held if len(held) == 2 else None


def _misfit_now(index: Any, trained: TrainingRecord, added_AD: npt.NDArray[np.float32], *, total: int) -> float:
    """How far off the codes of all faces are, from what it was before and of those who came; who left is taken to be like the rest."""
    before = trained.misfit if trained.misfit_now is None else trained.misfit_now
    of_added = misfit_of(index, added_AD)
    if of_added is None:
        return before
    return before + (of_added - before) * min(1.0, len(added_AD) / max(1, total))


def _found(index: Any, changed: Changed, settings: SearchSettings) -> float:
    """Share of some of those who came that are found among the ten nearest of their own vectors: that they stand where they should."""
    if not len(changed.came):
        return 1.0
    step = -(-len(changed.came) // _ASKED_FOR)
    found_QK = search(index, changed.vectors[::step], k=10, settings=settings)[1]
    return float((found_QK == changed.came[::step, None]).any(axis=1).mean())


def change_of(
    parent: PublishedVersion, same: tuple[bool, bool], budget: IndexBudget, *, added: int, removed: int
) -> Change:
    """What the next version asks of the parent's index; `same` is whether it has the same encoder, and the same contract."""
    manifest = parent.manifest
    trained = manifest.index.trained
    return Change(
        parent=parent.number,
        kind=manifest.index.parameters.get("kind", "exact"),
        says_training=trained is not None,
        same_encoder=same[0],
        same_contract=same[1],
        same_budget=IndexBudget.of(manifest.index.budget) == budget,
        trained_faces=trained.faces if trained else manifest.faces,
        changed_before=trained.changed if trained else 0,
        added=added,
        removed=removed,
    )


def successor(
    parent: PublishedVersion, change: Change, choice: Choice, budget: IndexBudget, *, faces: int
) -> Successor:
    """What a changed copy of the parent's index, which is approximate, is to be."""
    record = parent.manifest.index
    assert record.trained is not None  # noqa: S101  the rule has asked
    return Successor(record, record.trained, change, choice, budget, faces)


def face_delta(before: pa.Table, after: pa.Table) -> FaceDelta:
    """Who comes, goes and moves between two tables of face_id and shard."""
    old, new = (table["face_id"].to_numpy() for table in (before, after))
    stay, at_old, at_new = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    shards = [table["shard"].take(pa.array(at)) for table, at in ((before, at_old), (after, at_new))]
    moved = stay[pc.not_equal(*shards).to_numpy()]
    return FaceDelta(added=np.delete(new, at_new), removed=np.delete(old, at_old), moved=moved)
