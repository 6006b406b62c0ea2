"""Leave out of every answer who was forgotten, from the moment of the wish, in any process that holds an index open."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from store.forgotten import Forgotten, read_forgotten
from store.index_file import index_size, search
from store.storage import Storage

__all__ = ["FRESH_S", "live_forgotten", "search_known"]

FRESH_S = 2.0
"""For so many seconds at most a process answers by the tags it has read."""

_read: dict[str, tuple[float, Forgotten]] = {}
_turn = threading.Lock()


def live_forgotten(storage: Storage) -> Forgotten:
    """The store's tags, read again where they were read more than FRESH_S seconds ago.

    Raises:
        ArtifactError: they cannot be read; nothing is answered unfiltered then.
    """
    with _turn:
        read_at, forgotten = _read.get(storage.uri, (-FRESH_S, Forgotten(key=None, tags=frozenset())))
        now = time.monotonic()
        if now - read_at >= FRESH_S:
            forgotten = read_forgotten(storage)
            _read[storage.uri] = now, forgotten
        return forgotten


def search_known(
    storage: Storage,
    index: Any,
    faces: Mapping[int, Mapping[str, Any]],
    queries_QD: npt.NDArray[np.float32],
    *,
    k: int,
    allowed_A: npt.NDArray[np.int64] | None = None,
) -> list[list[tuple[int, float]]]:
    """The k most similar faces of each query that were not forgotten; where some were, others take their place.

    Args:
        storage: the store, whose tags are asked after the search.
        index: as opened.
        faces: row of VERSION_FACES by face id.
        queries_QD: float32, (Q, D), unit length.
        k: how many.
        allowed_A: int64, (A,), ids of the faces to search among; None for all.

    Returns:
        Face id and cosine of each match, by falling cosine; fewer than k where no more are known.
    """
    total, asked = index_size(index)[0] if allowed_A is None else len(allowed_A), k
    while True:
        cosines, ids = search(index, queries_QD, k=asked, allowed_A=allowed_A)
        forgotten = live_forgotten(storage)
        gone = {i for i in np.unique(ids).tolist() if forgotten.has_face(faces[i])}
        found = [
            [(int(i), float(c)) for i, c in zip(ids[n], cosines[n], strict=True) if int(i) not in gone][:k]
            for n in range(len(ids))
        ]
        if asked >= total or all(len(one) >= k for one in found):
            return found
        asked = min(total, 2 * asked + len(gone))
