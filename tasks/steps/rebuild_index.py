"""Make a draft's index anew, where its changed copy of the index before did not pass the gate."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from store.index_choice import IndexBudget
from store.manifest import FileRecord, Manifest
from store.storage import Storage
from tasks.steps.choose_index import build_chosen
from tasks.steps.measure_index import Gallery
from tasks.steps.update_index import made_anew

__all__ = ["rebuild_index"]


def rebuild_index(
    storage: Storage,
    folder: str,
    manifest: Manifest,
    gallery: Gallery,
    *,
    queries: Callable[[], npt.NDArray[np.float32]],
    why: str,
) -> tuple[Manifest, bytes]:
    """Put a new index in the place of the draft's.

    Args:
        storage: the store.
        folder: of the draft.
        manifest: of the draft.
        gallery: its faces.
        queries: makes held-out queries to tune with.
        why: it is made anew, as a clause.

    Returns:
        The draft's manifest with the new index, and the index file's bytes.
    """
    budget = IndexBudget.of(manifest.index.budget)
    built = made_anew(build_chosen(gallery.ids, gallery.vectors, budget=budget, queries=queries), why)
    storage.write(f"{folder}/index.faiss", built.data)
    record = built.record(budget)
    files = {**manifest.files, "index.faiss": FileRecord(bytes=record.bytes, sha256=record.sha256)}
    return manifest.model_copy(update={"index": record, "files": files}), built.data
