"""Train a new index of more faces than are held at once, so that workers can code them; once for a build that is started again.

Which kind is quickest is measured, and may come out otherwise the next time. So what was chosen and trained is kept in the store, under a
name that says for which faces, encoder and budget: a build that was stopped goes on with it, and with what was coded by it.
"""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from store.errors import ArtifactError
from store.fingerprints import short_hash
from store.index_choice import IndexBudget
from store.layout import coding_folder
from store.storage import Storage
from store.trained_index import trained_bytes
from tasks.steps.choose_index import ChosenKind, TrainedKind, choose_trained
from tasks.steps.code_faces import CODE_FACES_VERSION, Coder, keep, read_kept
from tasks.steps.fill_index import BuiltIndex
from tasks.steps.held_out_queries import HeldOutQueries
from tasks.steps.held_out_truth import HeldOut, truth_parquet
from tasks.steps.stored_faces import StoredFaces
from tasks.steps.update_index import made_anew

__all__ = ["ToCode", "Training", "train_to_code"]

_TRAINING = "training.json"


@dataclass(frozen=True)
class Training:
    """What was chosen, and what faces are coded with."""

    coder: Coder
    chosen: ChosenKind


@dataclass(frozen=True)
class ToCode:
    """An index that is trained and not filled.

    Attributes:
        faces: that it is to be filled with.
        training: what came of its training.
        why: it is made anew, as a clause; empty where it follows none.
    """

    faces: StoredFaces
    training: Training
    why: str


_AS_JSON = TypeAdapter(Training)


def train_to_code(
    storage: Storage,
    faces: StoredFaces,
    *,
    budget: IndexBudget,
    queries: Callable[[], HeldOutQueries],
    why: str,
    folder: Path,
    device: str = "cpu",
) -> BuiltIndex | ToCode:
    """A new index as far as its training, which an earlier run may have done; or as a whole, where it is exact.

    Args:
        storage: the store.
        faces: all of them.
        budget: what the index may take.
        queries: makes held-out queries to tune with.
        why: it is made anew, as a clause; empty where it follows none.
        folder: of this machine, where an exact index is made.
        device: as of `build_chosen`.

    Raises:
        ArtifactError: a vector of the sample, or of an exact index, is none; the message names its face.
        VersionError: nothing fits into the memory; the message has the figures.
    """
    place = _folder(faces, budget)
    training = _kept(storage, place)
    if training is None:
        drawn = cache(queries)
        made = choose_trained(faces, budget=budget, queries=lambda: drawn().vectors, folder=folder, device=device)
        if isinstance(made, BuiltIndex):
            return made_anew(made, why)
        training = _keep(storage, place, made, drawn(), faces)
    return ToCode(faces, training, why)


def _folder(faces: StoredFaces, budget: IndexBudget) -> str:
    made_of = [CODE_FACES_VERSION, importlib.metadata.version("faiss-cpu"), faces.encoder, faces.digest()]
    return coding_folder(short_hash([*made_of, budget.as_json()]))


def _keep(storage: Storage, folder: str, made: TrainedKind, drawn: HeldOutQueries, faces: StoredFaces) -> Training:
    """Keep a training; of two builds that do so at once, the first one's is taken by both."""
    asked = truth_parquet((HeldOut("tune", drawn.faces, {1.0: made.asked}),), dimension=faces.dimension)
    coder = Coder(
        folder=folder,
        trained=keep(storage, folder, trained_bytes(made.trained), rows=0, suffix=".faiss"),
        asked=keep(storage, folder, asked, rows=len(drawn.faces)),
        encoder=faces.encoder,
        dimension=faces.dimension,
    )
    training = Training(coder, made.chosen)
    storage.create(f"{folder}/{_TRAINING}", _AS_JSON.dump_json(training))
    return _kept(storage, folder) or training


def _kept(storage: Storage, folder: str) -> Training | None:
    """What an earlier run trained, where all of it still reads back."""
    path = f"{folder}/{_TRAINING}"
    if not storage.exists(path):
        return None
    try:
        training = _AS_JSON.validate_json(storage.read(path))
        read_kept(storage, training.coder.trained)
        read_kept(storage, training.coder.asked)
    except (ValueError, ArtifactError):  # not what was written, or of a store that was moved: trained anew
        storage.remove(path)
        return None
    return training
