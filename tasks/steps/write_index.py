"""Join shards into the files of a version, under the store's runs/, where nobody reads them yet.

Where an index is made anew of more faces than are held in memory at once, this comes in three parts: `begin_index` trains it, workers
code its faces block by block (`code_faces`), and `finish_index` merges what they coded.
"""

import contextlib
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pyarrow as pa

from store.layout import open_store
from store.refs import ArtifactRef
from store.schemas import PLAN, from_parquet
from store.storage import Storage
from store.versions import PublishedVersion, read_version
from tasks.steps.build_anew import built_anew
from tasks.steps.code_faces import CodedBlock, code_faces
from tasks.steps.contract import Contract
from tasks.steps.draft_version import DRAFT, VersionTables, encode_tables, read_tables, write_draft, write_tables
from tasks.steps.fill_index import BuiltIndex
from tasks.steps.held_out_queries import HeldOutQueries, held_out_queries
from tasks.steps.held_out_truth import HeldOut
from tasks.steps.plan_build import BuildPlan
from tasks.steps.plan_coding import CodingPlan, merge_coded, plan_coding
from tasks.steps.resolve_encoder import EncoderRef
from tasks.steps.stored_faces import StoredFaces, open_faces
from tasks.steps.train_to_code import ToCode, train_to_code
from tasks.steps.update_index import NextVersion, update_index
from tasks.steps.version_tables import read_before, version_faces, version_photos
from tasks.steps.workroom import workroom
from tasks.steps.write_changes import write_changes

__all__ = ["DRAFT", "begin_index", "finish_index", "write_index"]


def write_index(
    plan: BuildPlan, *, store: str, contract: Contract, encoder: EncoderRef, device: str = "cpu"
) -> ArtifactRef:
    """Write a version's index, tables and draft manifest, all of it in this process; arguments and refusals as of `begin_index`."""
    begun = begin_index(plan, store=store, contract=contract, encoder=encoder, device=device)
    if isinstance(begun, ArtifactRef):
        return begun
    blocks = (*begun.finished, *begun.requests)
    coded = [code_faces(block, store=store, coder=begun.coder, device=device) for block in blocks]
    return finish_index(begun, coded, plan, store=store, contract=contract, encoder=encoder)


def begin_index(
    plan: BuildPlan, *, store: str, contract: Contract, encoder: EncoderRef, device: str = "cpu"
) -> ArtifactRef | CodingPlan:
    """Write a version's index, tables and draft manifest under the store's runs/; of an index of many faces as far as its training.

    The index is chosen for the faces and the plan's budget.

    Args:
        plan: every shard in it is committed and embedded.
        store: its uri.
        contract: of the shards.
        encoder: of the embeddings.
        device: as of `index_device`, where lists are trained and exact neighbours found.

    Returns:
        The draft manifest, whose rows are the faces in the index; or what is to be coded before there is one.

    Raises:
        ArtifactError: a face has no embedding, or one that is none; the message names it.
        VersionError: no index fits into the budget's memory; the message has the figures.
    """
    storage = open_store(store, create=True)
    parent = None if plan.parent is None else read_version(storage, plan.parent)
    build = str(uuid.uuid4())
    with workroom(storage) as room:
        changed = write_changes(storage, parent, plan, contract=contract, encoder=encoder, build=build, room=room)
    if changed is not None:
        return changed
    before = read_before(storage, parent, contract=contract.id)
    data = storage.read(storage.path_of(plan.table.uri), sha256=plan.table.sha256)
    planned = from_parquet(data, PLAN, where=plan.table.uri)
    photos = version_photos(storage, planned, before, contract=contract.id)
    faces = version_faces(storage, photos, before, contract=contract.id)
    tables = VersionTables(plan, contract, encoder, before.manifest, photos.table, faces)
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

    wanted = NextVersion(faces, opened, encoder.id, contract.id, plan.budget, queries, device)
    with workroom(storage) as room, ThreadPoolExecutor(1, thread_name_prefix="encode-tables") as beside:
        encoding = beside.submit(encode_tables, tables)
        made, held = _made(storage, parent, wanted, before.faces, room)
        files = write_tables(storage, encoding.result(), build)
        if isinstance(made, ToCode):
            return plan_coding(storage, made, build=build, tables=files)
        return write_draft(storage, tables.contents, made, held, build=build, files=files)


def finish_index(
    coding: CodingPlan,
    coded: Sequence[CodedBlock],
    plan: BuildPlan,
    *,
    store: str,
    contract: Contract,
    encoder: EncoderRef,
) -> ArtifactRef:
    """Merge coded blocks into the index of a version, and write its draft manifest.

    Args:
        coding: as `begin_index` gave it.
        coded: every block of it.
        plan: of the version.
        store: its uri.
        contract: of the shards.
        encoder: of the embeddings.

    Returns:
        The draft manifest; its rows are the faces in the index.

    Raises:
        ArtifactError: a block, or a file of the beginning, is not what was written; the message names it.
    """
    storage = open_store(store, create=True)
    photos, faces = read_tables(storage, coding.build, coding.tables)
    before = None if plan.parent is None else read_version(storage, plan.parent).manifest
    before = before if before is not None and before.contract.id == contract.id else None
    tables = VersionTables(plan, contract, encoder, before, photos, faces)
    with workroom(storage) as room:
        built, held = merge_coded(
            storage, coding, coded, ids_N=faces["face_id"].to_numpy(), budget=plan.budget, folder=room
        )
        draft = write_draft(storage, tables.contents, built, (held,), build=coding.build, files=coding.tables)
    with contextlib.suppress(Exception):  # it is done, whatever becomes of what may be erased
        storage.remove(coding.coder.folder)
    return draft


def _made(
    storage: Storage, parent: PublishedVersion | None, wanted: NextVersion, faces_before: pa.Table, room: Path
) -> tuple[BuiltIndex | ToCode, tuple[HeldOut, ...]]:
    """A changed copy of the index before, or a new one, or a trained one; and queries with their exact nearest, where it is approximate."""
    updated = update_index(storage, parent, wanted, faces_before=faces_before, folder=room)
    if updated.built is not None:
        return updated.built, updated.held
    faces, budget, queries, why = wanted.faces, wanted.budget, wanted.queries, updated.why
    if isinstance(faces, StoredFaces):
        made = train_to_code(storage, faces, budget=budget, queries=queries, why=why, folder=room, device=wanted.device)
        return made, ()
    return built_anew(faces, budget=budget, queries=queries, why=why, folder=room, device=wanted.device)
