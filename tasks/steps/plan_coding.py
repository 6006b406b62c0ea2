"""Cut the faces of an index that is trained into blocks that workers code, and put together what they coded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from store.coded_faces import read_coded
from store.errors import ArtifactError
from store.index_choice import IndexBudget
from store.index_stream import Spool, WrittenIndex, code_sizes
from store.manifest import FileRecord
from store.refs import ArtifactRef
from store.schemas import TO_CODE, to_parquet
from store.storage import Storage
from store.trained_index import read_trained
from store.version_files import INDEX_FILE
from tasks.steps.choose_index import ChosenKind, tuned
from tasks.steps.code_faces import CodedBlock, Coder, commit_name, keep, read_kept
from tasks.steps.face_blocks import BLOCK
from tasks.steps.fill_index import BuiltIndex
from tasks.steps.held_out_truth import HeldOut, read_truth
from tasks.steps.train_to_code import ToCode
from tasks.steps.update_index import made_anew

__all__ = ["CodingPlan", "fill_coded", "merge_coded", "plan_coding"]

_FACES = 2 * BLOCK
"""Faces that a worker codes at a time, about: of 512 dimensions, some seconds of one core."""


@dataclass(frozen=True)
class CodingPlan:
    """What is left to do of a version whose index is trained.

    Attributes:
        coder: what its faces are coded with.
        requests: TO_CODE of each block that is to be coded.
        finished: of each that an earlier run has coded.
        chosen: the kind of index.
        why: it is made anew, as a clause; empty where it follows none.
        build: the version's uuid; its tables stand in this build's folder.
        tables: what was written of them.
    """

    coder: Coder
    requests: tuple[ArtifactRef, ...]
    finished: tuple[ArtifactRef, ...]
    chosen: ChosenKind
    why: str
    build: str
    tables: dict[str, FileRecord]


def plan_coding(storage: Storage, wanted: ToCode, *, build: str, tables: dict[str, FileRecord]) -> CodingPlan:
    """Keep the blocks for workers to read; those that are coded already are known by their commits.

    Args:
        storage: the store.
        wanted: the index, trained.
        build: the version's uuid.
        tables: what was written of its tables.
    """
    coder = wanted.training.coder
    parts = wanted.faces.parts(_FACES)
    blocks = [keep(storage, coder.folder, to_parquet(part, TO_CODE), rows=part.num_rows) for part in parts]
    there = set(storage.names(coder.folder))
    finished = tuple(block for block in blocks if commit_name(coder, block.sha256) in there)
    requests = tuple(block for block in blocks if commit_name(coder, block.sha256) not in there)
    return CodingPlan(coder, requests, finished, wanted.training.chosen, wanted.why, build, tables)


def merge_coded(
    storage: Storage,
    plan: CodingPlan,
    coded: Sequence[CodedBlock],
    *,
    ids_N: npt.NDArray[np.int64],
    budget: IndexBudget,
    folder: Path,
) -> tuple[BuiltIndex, HeldOut]:
    """The index of all blocks, tuned, and the queries with their exact nearest of all faces.

    Args:
        storage: the store.
        plan: every block of it is coded.
        coded: what became of each, in whatever order.
        ids_N: int64, ascending: all faces.
        budget: of the index.
        folder: of this machine; room as of `build_chosen`.

    Raises:
        ArtifactError: a block is missing, or not what its worker wrote; the message names the file.
    """
    written, held = fill_coded(storage, plan, coded, ids_N=ids_N, folder=folder)
    built = tuned(plan.chosen, written, held.near[1.0], faces=len(ids_N), budget=budget, folder=folder)
    return made_anew(built, plan.why), held


def fill_coded(
    storage: Storage, plan: CodingPlan, coded: Sequence[CodedBlock], *, ids_N: npt.NDArray[np.int64], folder: Path
) -> tuple[WrittenIndex, HeldOut]:
    """The same before it is tuned: the file in the folder; arguments and refusals as of `merge_coded`."""
    trained = read_trained(read_kept(storage, plan.coder.trained), where=plan.coder.trained.uri)
    code_bytes, finer_bytes = code_sizes(trained)
    asked = _held(storage, plan.coder.asked, plan.coder)
    near = asked.near[1.0]
    with Spool(trained, ids_N, folder) as spool:
        for block in coded:
            try:
                data = read_kept(storage, block.codes)
                codes = read_coded(data, code_bytes=code_bytes, finer_bytes=finer_bytes, where=block.codes.uri)
                near = near.merged(_held(storage, block.near, plan.coder).near[1.0])
            except ArtifactError as error:
                raise _refused(storage, plan, coded, error) from error
            spool.append(codes)
        return spool.write(folder / INDEX_FILE), replace(asked, near={1.0: near})


def _refused(storage: Storage, plan: CodingPlan, coded: Sequence[CodedBlock], first: ArtifactError) -> ArtifactError:
    """What is said of blocks that do not read back; they are not taken for coded any more."""
    broken = 0
    for block in coded:
        try:
            read_kept(storage, block.codes)
            read_kept(storage, block.near)
        except ArtifactError:
            storage.remove(f"{plan.coder.folder}/{commit_name(plan.coder, block.block)}")
            broken += 1
    return ArtifactError(
        f"{first}; of {len(coded)} coded blocks of faces {broken} cannot be read back: run the same command again, which codes them anew"
    )


def _held(storage: Storage, ref: ArtifactRef, coder: Coder) -> HeldOut:
    return read_truth(read_kept(storage, ref), dimension=coder.dimension, where=ref.uri)["tune"]
