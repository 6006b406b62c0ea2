"""Make an empty index of a kind and train it on a sample: rotation or axes, lists, codes.

The same sample gives the same index on the same machine. D dimensions, S faces of the sample.
"""

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from store.errors import ArtifactError
from store.index_choice import Candidate

__all__ = ["SAMPLE_A_LIST", "build_graph", "check_vectors", "empty_like", "train_index"]

SAMPLE_A_LIST = 40
"""Faces of the sample a list; more changed recall by less than 0.005."""

_ITERATIONS = 8
_SEED = 1234
_GRAPH_LINKS = 32
_GRAPH_WIDTH = 80


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


def train_index(candidate: Candidate, sample_SD: npt.NDArray[np.float32]) -> Any:
    """An empty trained index of lists, without face ids.

    Args:
        candidate: its kind and number of lists.
        sample_SD: float32, unit length, drawn at random; about SAMPLE_A_LIST a list.

    Raises:
        ArtifactError: the sample is too small.
    """
    dimension = sample_SD.shape[1]
    if len(sample_SD) < candidate.lists:
        raise ArtifactError(
            f"{candidate.key} wants at least {candidate.lists:,} faces to train on, got {len(sample_SD):,}"
        )
    if candidate.kind == "lists-pca":
        axes = faiss.PCAMatrix(dimension, dimension // 4)
        inner = _refined(axes, _lists(candidate, dimension // 4), dimension)
    elif candidate.kind == "lists-rabitq":
        turn = faiss.RandomRotationMatrix(dimension, dimension)
        turn.init(_SEED)
        inner = _refined(turn, _lists(candidate, dimension), dimension)
    else:
        inner = _lists(candidate, dimension)
    inner.train(np.ascontiguousarray(sample_SD))
    return inner


def empty_like(inner: Any) -> Any:
    """A copy of a trained empty index that may be filled."""
    return faiss.clone_index(inner)


def build_graph(face_ids_N: npt.NDArray[np.int64], vectors_ND: npt.NDArray[np.float32]) -> Any:
    """A graph over all faces, in memory: it cannot be built from parts.

    Args:
        face_ids_N: int64, ascending.
        vectors_ND: float32, (N, D), unit length.
    """
    graph = faiss.IndexHNSWFlat(vectors_ND.shape[1], _GRAPH_LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = _GRAPH_WIDTH
    index = faiss.IndexIDMap(graph)
    index.add_with_ids(np.ascontiguousarray(vectors_ND), face_ids_N)
    return index


def _lists(candidate: Candidate, dimension: int) -> Any:
    metric, coarse = faiss.METRIC_INNER_PRODUCT, faiss.IndexFlatIP(dimension)
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
    lists.cp.max_points_per_centroid = SAMPLE_A_LIST
    return lists


def _refined(turn: Any, lists: Any, dimension: int) -> Any:
    """Candidates by turned vectors, compared again by a byte a dimension of the vectors as they are."""
    finer = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexRefine(faiss.IndexPreTransform(turn, lists), finer)
