"""The FAISS index file: an exact inner-product index under an id map.

Bytes are checked by hash before FAISS sees them; ids are face ids; a search changes nothing.
"""

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from store.errors import ArtifactError

__all__ = ["build_exact_index", "index_size", "indexed_ids", "load_index", "search"]


def build_exact_index(face_ids_N: npt.NDArray[np.int64], embeddings_ND: npt.NDArray[np.float32]) -> bytes:
    """Serialise an exact index.

    Args:
        face_ids_N: int64, ascending and unique.
        embeddings_ND: float32, (N, D), unit length.

    Raises:
        ArtifactError: ids are not ascending, or vectors are not finite and of unit length; the message names the first.
    """
    if np.any(np.diff(face_ids_N) <= 0):
        at = int(face_ids_N[1:][np.diff(face_ids_N) <= 0][0])
        raise ArtifactError(f"face {at} stands twice in the index or out of order; ids must ascend")
    norms = np.linalg.norm(embeddings_ND, axis=1)
    if not np.all(np.abs(norms - 1) < 1e-3):
        at = int(np.flatnonzero(~(np.abs(norms - 1) < 1e-3))[0])
        raise ArtifactError(f"the embedding of face {face_ids_N[at]} has length {norms[at]:.4g}, wanted 1")
    index = faiss.IndexIDMap(faiss.IndexFlatIP(embeddings_ND.shape[1]))
    index.add_with_ids(np.ascontiguousarray(embeddings_ND), face_ids_N)
    return bytes(faiss.serialize_index(index))


def load_index(data: bytes, *, where: str) -> faiss.Index:
    """Open an index from bytes whose hash has been checked.

    Raises:
        ArtifactError: FAISS refuses them; the message says where.
    """
    try:
        return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
    except (RuntimeError, AssertionError) as error:
        raise ArtifactError(f"{where} is not an index that FAISS {faiss.__version__} reads: {error}") from error


def indexed_ids(index: Any) -> npt.NDArray[np.int64]:
    """The face ids in the index, int64, ascending."""
    ids_N: npt.NDArray[np.int64] = np.sort(faiss.vector_to_array(index.id_map))
    return ids_N


def index_size(index: faiss.Index) -> tuple[int, int]:
    """The number of vectors and their dimension."""
    return int(index.ntotal), int(index.d)


def search(
    index: faiss.Index, queries_QD: npt.NDArray[np.float32], *, k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The k most similar faces of each query, equal cosines ordered by face id.

    Args:
        index: as opened.
        queries_QD: float32, (Q, D), unit length.
        k: how many; fewer come back where the index holds fewer.

    Returns:
        cosines (Q, K) float32 falling, and face ids (Q, K) int64, K = min(k, faces).

    Raises:
        ArtifactError: the dimensions differ.
    """
    total, dimension = index_size(index)
    if queries_QD.ndim != 2 or queries_QD.shape[1] != dimension:
        raise ArtifactError(f"the index holds vectors of {dimension}, the query has shape {queries_QD.shape}")
    wanted = min(k, total)
    if wanted == 0:  # FAISS refuses to look for nothing
        return np.zeros((len(queries_QD), 0), np.float32), np.zeros((len(queries_QD), 0), np.int64)
    queries_QD = np.ascontiguousarray(queries_QD, dtype=np.float32)
    asked = min(wanted + 1, total)
    cosines, ids = index.search(queries_QD, asked)
    while asked < total and np.any(cosines[:, -1] == cosines[:, wanted - 1]):  # a tie goes on behind the last place
        asked = min(2 * asked, total)
        cosines, ids = index.search(queries_QD, asked)
    order = np.lexsort((ids, -cosines), axis=1)[:, :wanted]
    return np.take_along_axis(cosines, order, axis=1), np.take_along_axis(ids, order, axis=1)
