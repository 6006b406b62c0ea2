"""Write the next version as changes to the one before: its files in place as they are, and beside them what came and who left.

It is done where the plan knows what differs, where that is little, and where the index before may be kept; in all other cases the
version is written whole. So it is where somebody left and the version of the base is gone: nobody who left lies in new files for
longer than that. Left is what of the base counts no more.
"""

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from store.index_change import MOST_BESIDE, reason_to_rebuild
from store.index_changed import ChangedIndex
from store.index_choice import IndexBudget, choose_index
from store.index_edit import edit_index, emptied
from store.index_stream import Spool, WrittenIndex
from store.index_trial import open_mapped
from store.layout import version_folder
from store.manifest import ChangesRecord
from store.refs import ArtifactRef
from store.schemas import ADDED_PHOTOS, LEFT, VERSION_FACES, to_parquet
from store.storage import Storage
from store.verified_files import verified_file
from store.version_files import (
    ADDED_FACES,
    ADDED_INDEX,
    ADDED_PHOTOS_FILE,
    INDEX_FILE,
    LEFT_FILE,
    OF_THE_BASE,
    VersionFiles,
)
from store.version_index import open_index_of
from store.versions import MANIFEST, PublishedVersion
from tasks.steps.contract import Contract
from tasks.steps.draft_version import write_draft, write_tables
from tasks.steps.fill_index import BuiltIndex
from tasks.steps.held_out_truth import Changed, HeldOut
from tasks.steps.next_changes import NextChanges, changes_of
from tasks.steps.plan_build import BuildPlan
from tasks.steps.resolve_encoder import EncoderRef
from tasks.steps.stored_faces import read_face_vectors
from tasks.steps.update_index import WrittenCopy, carried_on, change_of, judge, successor

__all__ = ["write_changes"]

_BLOCK = 65_536

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def write_changes(
    storage: Storage,
    parent: PublishedVersion | None,
    plan: BuildPlan,
    *,
    contract: Contract,
    encoder: EncoderRef,
    build: str,
    room: Path,
) -> ArtifactRef | None:
    """The draft manifest of a version that is kept as changes to its parent's base; None where it is to be written whole.

    Args:
        storage: the store.
        parent: the version before, if there is one.
        plan: every shard in it is committed and embedded.
        contract: of the shards.
        encoder: of the embeddings.
        build: the version's uuid.
        room: a folder of this machine.

    Raises:
        ArtifactError: a face has no embedding, or a file is not what was recorded; the message names it.
    """
    if parent is None or plan.difference is None or plan.difference.revision != parent.manifest.revision:
        return None
    if parent.manifest.contract.id != contract.id or parent.manifest.encoder.id != encoder.id:
        return None
    if IndexBudget.of(parent.manifest.index.budget) != plan.budget:
        return None
    following = changes_of(storage, parent, plan, plan.difference, contract=contract)
    if following is None or following.share > MOST_BESIDE or _outlives(storage, parent, following):
        return None
    with ThreadPoolExecutor(2, thread_name_prefix="write-changes") as beside:
        holding = beside.submit(following.contents, plan, contract, encoder)
        taken = _changed_index(storage, parent, following, plan, encoder, room, beside)
        if taken is None:
            return None
        built, held, left_vectors = taken
        contents = holding.result()
    tables = {
        ADDED_PHOTOS_FILE: to_parquet(following.added_photos, ADDED_PHOTOS),
        ADDED_FACES: to_parquet(following.added_faces, VERSION_FACES),
        LEFT_FILE: to_parquet(
            _left({"photos": following.left_photos, "faces": following.left_faces, "vectors": left_vectors}), LEFT
        ),
    }
    files = write_tables(storage, tables, build)
    changes = parent.manifest.changes
    return write_draft(
        storage,
        contents,
        built,
        held,
        build=build,
        files=files | {name: parent.manifest.files[name] for name in OF_THE_BASE},
        changes=ChangesRecord(
            base=parent.number if changes is None else changes.base,
            photos_added=following.added_photos.num_rows,
            photos_left=len(following.left_photos),
            faces_added=following.added_faces.num_rows,
            faces_left=len(following.left_faces),
            vectors_added=contents.faces - len(following.before.ids_B) + len(left_vectors),
            vectors_left=len(left_vectors),
        ),
    )


def _outlives(storage: Storage, parent: PublishedVersion, following: NextChanges) -> bool:
    """Whether somebody who left would lie in these files longer than in the base's own version, which a vacuum has removed."""
    changes = parent.manifest.changes
    if changes is None or not (len(following.left_photos) or len(following.left_faces)):
        return False
    return not storage.exists(f"{version_folder(changes.base)}/{MANIFEST}")


def _changed_index(
    storage: Storage,
    parent: PublishedVersion,
    following: NextChanges,
    plan: BuildPlan,
    encoder: EncoderRef,
    room: Path,
    beside: Executor,
) -> tuple[BuiltIndex, tuple[HeldOut, ...], Ints] | None:
    """The index of the faces added to the base, queries with their exact nearest, and whose vectors left the base; None where it will not do."""
    delta, total = following.delta, len(following.face_ids)
    choice = choose_index(total, encoder.dimension, plan.budget)
    change = change_of(parent, (True, True), plan.budget, added=len(delta.added), removed=len(delta.removed))
    if reason_to_rebuild(change, choice):
        return None
    came, gone = np.union1d(delta.added, delta.moved), np.union1d(delta.removed, delta.moved)
    theirs = following.new_faces.select(["face_id", "shard"]).filter(
        pa.array(np.isin(following.new_faces["face_id"].to_numpy(), came))
    )
    vectors = read_face_vectors(
        storage, theirs, encoder=encoder.id, dimension=encoder.dimension, recorded=parent.manifest
    )
    changed = Changed(gone, came, vectors)
    carrying = beside.submit(carried_on, storage, parent, changed, faces=total)
    files = following.before.files
    index = open_index_of(files, known=True)
    written, left = _add(index, files, changed, room)
    if (held := carrying.result()) is None:
        return None
    base = index.base if isinstance(index, ChangedIndex) else index
    changed_index = ChangedIndex(base, open_mapped(str(room / ADDED_INDEX)), left)
    asked = successor(parent, change, choice, plan.budget, faces=total)
    copy = WrittenCopy(room / ADDED_INDEX, written, base=parent.manifest.files[INDEX_FILE])
    judged = judge(changed_index, asked, changed, held, copy)
    return None if judged.built is None else (judged.built, held, left)


def _add(index: object, files: VersionFiles, changed: Changed, room: Path) -> tuple[WrittenIndex, Ints]:
    """Write the index of all faces that were added to the base; and whose vectors left the base, ascending."""
    target = room / ADDED_INDEX
    if isinstance(index, ChangedIndex):
        record = files.manifest.files[ADDED_INDEX]
        source = verified_file(files.storage, files.paths[ADDED_INDEX], sha256=record.sha256, size=record.bytes)
        gone = np.intersect1d(changed.gone, index.added_ids)
        written = edit_index(source, target, removed_R=gone, added_A=changed.came, vectors_AD=changed.vectors)
        return written, np.union1d(index.left, np.setdiff1d(changed.gone, gone))
    record = files.manifest.files[INDEX_FILE]
    source = verified_file(files.storage, files.paths[INDEX_FILE], sha256=record.sha256, size=record.bytes)
    with Spool(emptied(open_mapped(str(source))), changed.came, room) as spool:
        for start in range(0, len(changed.came), _BLOCK):
            some = slice(start, start + _BLOCK)
            spool.add(np.arange(len(changed.came))[some], changed.vectors[some])
        return spool.write(target), changed.gone


def _left(of: dict[str, Ints]) -> pa.Table:
    names = np.repeat(list(of), [len(ids) for ids in of.values()])
    return pa.table({"of": pa.array(names, pa.string()), "id": np.concatenate(list(of.values()))}, schema=LEFT)
