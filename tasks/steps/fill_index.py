"""Build an index of a kind that is chosen: train it on a sample, fill it with all faces, and say of it what the manifest needs.

It is written block by block into a file, and never in memory as a whole. N faces, S of them in a sample, D dimensions.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.exact_search import NearestFaces
from models.near_pairs import Screen, near_pairs
from store.index_choice import Candidate, IndexBudget, kind_for
from store.index_edit import misfit_of, unevenness_of
from store.index_stream import Spool, WrittenIndex
from store.index_train import sample_size, train_index
from store.index_trial import open_mapped
from store.manifest import FileRecord, IndexRecord, TrainingRecord
from store.trained_index import without_faces
from store.version_files import INDEX_FILE
from tasks.steps.face_blocks import FaceBlocks, Gallery, sample_rows
from tasks.steps.index_device import centres_for

__all__ = [
    "BuiltIndex",
    "build_as_recorded",
    "build_exact",
    "fill_index",
    "sample_faces",
    "some_of",
    "train_kind",
    "training_record",
]

_SEED = 20_261_127


@dataclass(frozen=True)
class BuiltIndex:
    """An index, and what the manifest says of it.

    Attributes:
        path: of the file, on this machine; where there is a base, of the faces added to it.
        written: its size and hash.
        key: as FAISS writes such an index.
        parameters: kind, and how it is searched.
        why: in words.
        measured: what was tried: kind, key, faces it was tried with, and each setting's recall@10 and latency.
        change: "updated" where it is a changed copy of the one before.
        trained: on what an approximate one was trained, and what has changed since.
        near: the nearest of all faces to the queries that it was tuned with; None where there were none.
        base: the index file of the version before that it is kept as changes to; None where it stands whole.
    """

    path: Path
    written: WrittenIndex
    key: str
    parameters: dict[str, Any]
    why: str
    measured: tuple[dict[str, Any], ...] = ()
    change: Literal["rebuilt", "updated"] = "rebuilt"
    trained: TrainingRecord | None = None
    near: NearestFaces | None = None
    base: FileRecord | None = None

    def record(self, budget: IndexBudget) -> IndexRecord:
        """What the manifest says of it."""
        file = self.base or self.written
        return IndexRecord(
            key=self.key,
            metric="inner_product",
            parameters=self.parameters,
            why=self.why,
            change=self.change,
            bytes=file.bytes,
            sha256=file.sha256,
            budget=budget.as_json(),
            measured=list(self.measured),
            trained=self.trained,
        )


def build_as_recorded(record: IndexRecord, faces: FaceBlocks, *, folder: Path) -> BuiltIndex:
    """The same kind of index of fewer faces, trained on these alone, to be searched as before; exact where they are too few.

    Args:
        record: of the index whose place it takes.
        faces: read twice.
        folder: as of `build_chosen`.
    """
    candidate = kind_for(record.parameters.get("kind", "exact"), len(faces.ids), faces.dimension)
    why = record.trained.why if record.trained else record.why
    if candidate.kind == "exact":
        why = why if record.key == "Flat" else "exact search: too few faces are left to train on"
        return replace(build_exact(faces, why, folder), measured=tuple(record.measured))
    sample = sample_faces(faces, sample_size(candidate))
    trained = train_kind(candidate, sample)
    misfit = misfit_of(without_faces(trained), sample.vectors) or 0.0
    written, _ = fill_index(trained, faces, folder, _nobody_asks(faces))
    return BuiltIndex(
        folder / INDEX_FILE,
        written,
        candidate.key,
        dict(record.parameters),
        why,
        tuple(record.measured),
        trained=training_record(open_mapped(str(folder / INDEX_FILE)), misfit, len(faces.ids), None, why),
    )


def build_exact(faces: FaceBlocks, why: str, folder: Path) -> BuiltIndex:
    """An exact index of all faces, in the folder, and why it is one."""
    candidate = kind_for("exact", len(faces.ids), faces.dimension)
    nobody = Gallery(faces.ids[:0], np.zeros((0, faces.dimension), np.float32))
    written, _ = fill_index(train_kind(candidate, nobody), faces, folder, _nobody_asks(faces))
    return BuiltIndex(folder / INDEX_FILE, written, "Flat", {}, why)


def train_kind(candidate: Candidate, sample: Gallery, device: str = "cpu") -> Any:
    """An index of this kind without faces, as of `train_index`, trained on as many of a sample as it wants."""
    vectors_SD = some_of(sample, sample_size(candidate)).vectors
    return train_index(candidate, vectors_SD, centres_for(candidate, vectors_SD, device=device))


def fill_index(
    trained: Any, faces: FaceBlocks, folder: Path, near: NearestFaces, screen: Screen = near_pairs
) -> tuple[WrittenIndex, NearestFaces]:
    """Write an index of all faces; in the same pass find the queries' nearest.

    Args:
        trained: the index without faces, as of `train_index`.
        faces: read once, by rising id.
        folder: of this machine, where the file is made.
        near: the queries, and whom they have found so far.
        screen: who may be among the nearest, as of `near_pairs`.

    Raises:
        ArtifactError: a vector is none; the message names its face.
    """
    with Spool(trained, faces.ids, folder) as spool:
        for rows_B, vectors_BD in faces.blocks():
            spool.add(rows_B, vectors_BD)
            near = near.added(faces.ids[rows_B], vectors_BD, screen=screen)
        return spool.write(folder / INDEX_FILE), near


def _nobody_asks(faces: FaceBlocks) -> NearestFaces:
    return NearestFaces.of(np.zeros((0, faces.dimension), np.float32), depth=0)


def training_record(index: Any, misfit: float, faces: int, recall: float | None, why: str) -> TrainingRecord:
    """What the manifest says of the training of an index that was made anew; recall is None where it was not measured."""
    return TrainingRecord(
        faces=faces,
        changed=0,
        unevenness=unevenness_of(index),
        misfit=misfit,
        recall_at_10=recall,
        why=why,
    )


def sample_faces(faces: FaceBlocks, count: int) -> Gallery:
    """So many of the faces at most, drawn at random; always the same."""
    rows_S = sample_rows(len(faces.ids), count, seed=_SEED)
    return Gallery(faces.ids[rows_S], faces.take(rows_S))


def some_of(sample: Gallery, count: int) -> Gallery:
    """So many of a sample at most, drawn at random."""
    rows_S = sample_rows(len(sample.ids), count, seed=_SEED + 1)
    return sample if len(rows_S) == len(sample.ids) else Gallery(sample.ids[rows_S], sample.vectors[rows_S])
