"""Make an approximate index of a kind: trained on a sample (rotation or axes, lists, codes), then filled.

The same faces give the same index on the same machine. D dimensions, N faces, S of them in the sample.
"""

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from store.errors import ArtifactError
from store.index_choice import Candidate, scanned_axes

__all__ = ["check_vectors", "make_index", "sample_size", "train_index"]

_SAMPLE_A_LIST = 40  # more changed recall by less than 0.005
_SAMPLE_LEAST = 20_000
_ITERATIONS = 8
_SEED = 1234
_BLOCK = 65_536


def check_vectors(face_ids_N: npt.NDArray[np.int64], vectors_ND: npt.NDArray[np.float32]) -> None:
    """Refuse vectors that are no embeddings.

    Raises:
        ArtifactError: one is not finite, or not of unit length; the message names its face.
    """
    norms_N = np.linalg.norm(vectors_ND, axis=1)
    wrong_N = ~(np.abs(norms_N - 1) < 1e-3)
    if wrong_N.any():
        at = int(np.flatnonzero(wrong_N)[0])
        raise ArtifactError(f"the embedding of face {face_ids_N[at]} has length {norms_N[at]:.4g}, wanted 1")


def sample_size(candidate: Candidate) -> int:
    """How many faces a kind is trained on; it follows the number of lists, which is bounded."""
    return max(_SAMPLE_LEAST, _SAMPLE_A_LIST * candidate.lists)


def train_index(
    candidate: Candidate, sample_SD: npt.NDArray[np.float32], centres_LD: npt.NDArray[np.float32] | None = None
) -> Any:
    """An empty trained index of a kind, without face ids.

    Args:
        candidate: its kind and number of lists.
        sample_SD: float32, unit length, drawn at random from all faces; `sample_size` says how many.
        centres_LD: float32, unit length, of the lists, where they are known; FAISS finds them in the sample otherwise.

    Raises:
        ArtifactError: there are fewer faces than lists; the message has both numbers.
    """
    if len(sample_SD) < candidate.lists:
        raise ArtifactError(
            f"{candidate.key} wants at least {candidate.lists:,} faces to train on, got {len(sample_SD):,}"
        )
    inner = _empty(candidate, sample_SD.shape[1], centres_LD)
    inner.train(np.ascontiguousarray(sample_SD))
    return inner


def make_index(
    candidate: Candidate,
    face_ids_N: npt.NDArray[np.int64],
    vectors_ND: npt.NDArray[np.float32],
    centres_LD: npt.NDArray[np.float32] | None = None,
) -> Any:
    """An approximate index of these faces under their ids, in memory, trained on a sample of them.

    Args:
        candidate: its kind and number of lists.
        face_ids_N: int64, ascending.
        vectors_ND: float32, unit length; see `check_vectors`.
        centres_LD: as of `train_index`.

    Raises:
        ArtifactError: there are fewer faces than lists; the message has both numbers.
    """
    rows = np.random.default_rng(_SEED).permutation(len(vectors_ND))[: sample_size(candidate)]
    index = faiss.IndexIDMap(train_index(candidate, vectors_ND[np.sort(rows)], centres_LD))
    for start in range(0, len(face_ids_N), _BLOCK):
        block = slice(start, start + _BLOCK)
        index.add_with_ids(np.ascontiguousarray(vectors_ND[block]), face_ids_N[block])
    return index


def _empty(candidate: Candidate, dimension: int, centres_LD: npt.NDArray[np.float32] | None) -> Any:
    if candidate.kind == "exact":
        return faiss.IndexFlatIP(dimension)
    if candidate.kind == "scan":
        axes = scanned_axes(dimension)
        short = faiss.PCAMatrix(dimension, axes)
        codes = faiss.IndexPQFastScan(axes, axes // 2, 4, faiss.METRIC_INNER_PRODUCT)
        return _refined(short, codes, dimension)
    if candidate.kind == "lists-rabitq":
        turn = faiss.RandomRotationMatrix(dimension, dimension)
        turn.init(_SEED)
        turned_LD = None if centres_LD is None else turn.apply(centres_LD)
        return _refined(turn, _lists(candidate, dimension, turned_LD), dimension)
    return _lists(candidate, dimension, centres_LD)


def _lists(candidate: Candidate, dimension: int, centres_LD: npt.NDArray[np.float32] | None) -> Any:
    metric, coarse = faiss.METRIC_INNER_PRODUCT, faiss.IndexFlatIP(dimension)
    if centres_LD is not None:
        coarse.add(centres_LD)  # as many as there are lists: training then leaves them as they are
    if candidate.kind == "lists":
        lists = faiss.IndexIVFFlat(coarse, dimension, candidate.lists, metric)
    elif candidate.kind == "lists-rabitq":
        lists = faiss.IndexIVFRaBitQ(coarse, dimension, candidate.lists, metric)
    else:
        lists = faiss.IndexIVFScalarQuantizer(coarse, dimension, candidate.lists, faiss.ScalarQuantizer.QT_8bit, metric)
    lists.cp.spherical = True  # cosines are asked for
    lists.cp.niter = _ITERATIONS
    lists.cp.seed = _SEED
    lists.cp.min_points_per_centroid = 1
    lists.cp.max_points_per_centroid = _SAMPLE_A_LIST
    return lists


def _refined(turn: Any, codes: Any, dimension: int) -> Any:
    """Candidates by turned vectors, compared again by a byte a dimension of the vectors as they are."""
    finer = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexRefine(faiss.IndexPreTransform(turn, codes), finer)
