"""Leave out of every answer who was forgotten, from the moment of the wish, in any process that holds an index open."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from store.forgotten import Forgotten, read_forgotten
from store.index_filter import Filter, leave_out
from store.index_search import NOBODY, SearchSettings, search
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
    settings: SearchSettings | None = None,
    allowed: Filter | None = None,
) -> list[list[tuple[int, float]]]:
    """The k most similar faces of each query that were not forgotten; where some were, others take their place.

    Nobody asks of every face of a large version whether it was forgotten: those found are asked, and the search is made again
    without who was, until nobody found is.

    Args:
        storage: the store, whose tags are asked after the search.
        index: as opened.
        faces: row of VERSION_FACES by face id.
        queries_QD: float32, (Q, D), unit length.
        k: how many.
        settings: of an approximate index, as its manifest names them.
        allowed: who may be answered with; None allows all.

    Returns:
        Face id and cosine of each match, by falling cosine; fewer than k where no more are known.
    """
    while True:
        cosines, ids = search(index, queries_QD, k=k, settings=settings, allowed_A=allowed)
        forgotten = live_forgotten(storage)
        found = {i for i in np.unique(ids).tolist() if i != NOBODY and forgotten.has_face(faces[i])}
        if not found:
            return [
                [(int(i), float(c)) for i, c in zip(ids[n], cosines[n], strict=True) if i != NOBODY]
                for n in range(len(ids))
            ]
        allowed = leave_out(index, allowed, np.fromiter(found, np.int64, len(found)))
