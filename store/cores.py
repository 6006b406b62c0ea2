"""How many cores FAISS may compute on."""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss

__all__ = ["one_core"]


@contextmanager
def one_core() -> Iterator[None]:
    """In this block FAISS computes on one core, for this thread's searches."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
