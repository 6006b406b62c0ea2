"""Make an index anew, with the queries that it was tuned with, and put it into a draft's manifest."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from store.index_choice import IndexBudget
from store.manifest import FileRecord, Manifest
from store.version_files import INDEX_FILE
from tasks.steps.choose_index import build_chosen
from tasks.steps.face_blocks import FaceBlocks
from tasks.steps.fill_index import BuiltIndex
from tasks.steps.held_out_queries import HeldOutQueries
from tasks.steps.held_out_truth import HeldOut
from tasks.steps.update_index import made_anew

__all__ = ["built_anew", "with_index"]


def built_anew(
    faces: FaceBlocks,
    *,
    budget: IndexBudget,
    queries: Callable[[], HeldOutQueries],
    why: str,
    folder: Path,
    device: str = "cpu",
) -> tuple[BuiltIndex, tuple[HeldOut, ...]]:
    """A new index, and the queries it was tuned with, with their exact nearest; none where it is exact without more ado.

    Args:
        faces: all of them.
        budget: what the index may take.
        queries: makes held-out queries to tune with.
        why: it is made anew, as a clause; empty where it follows none.
        folder: of this machine, where it is made.
        device: as of `build_chosen`.
    """
    drawn = cache(queries)
    built = build_chosen(faces, budget=budget, queries=lambda: drawn().vectors, folder=folder, device=device)
    held = () if built.near is None else (HeldOut("tune", drawn().faces, {1.0: built.near}),)
    return made_anew(built, why), held


def with_index(manifest: Manifest, built: BuiltIndex) -> Manifest:
    """A draft's manifest with another index."""
    record = built.record(IndexBudget.of(manifest.index.budget))
    files = {**manifest.files, INDEX_FILE: FileRecord(bytes=record.bytes, sha256=record.sha256)}
    return manifest.model_copy(update={"index": record, "files": files})
