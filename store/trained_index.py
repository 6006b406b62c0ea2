"""An index that is trained and holds no face yet, as a file: for whoever codes faces with it elsewhere."""

from typing import Any

import faiss

from store.index_file import index_bytes, load_index
from store.index_search import parts_of

__all__ = ["read_trained", "trained_bytes", "without_faces"]


def without_faces(trained: Any) -> Any:
    """A trained index under face ids, of which there are none yet, as opened ones stand under theirs."""
    return faiss.IndexIDMap(trained)


def trained_bytes(trained: Any) -> bytes:
    """The file of an index as `train_index` made it."""
    return index_bytes(without_faces(trained))


def read_trained(data: bytes, *, where: str) -> Any:
    """The index in such a file, as `train_index` made it.

    Args:
        data: of the file; its hash has been checked.
        where: what to call it.

    Raises:
        ArtifactError: FAISS refuses it; the message says where.
    """
    opened = load_index(data, where=where)
    return faiss.clone_index(parts_of(opened).whole)  # which owns itself
