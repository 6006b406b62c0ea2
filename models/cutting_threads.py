"""Cutting faces out of photos by a few threads, where a GPU would otherwise wait for one."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

__all__ = ["cutting_threads", "in_threads"]

T = TypeVar("T")
R = TypeVar("R")

_MOST_THREADS = 8  # what is not resizing or JPEG holds Python's lock, so more gain nothing


def cutting_threads(device: str) -> int:
    """How many threads to cut with beside a detector or encoder on this device.

    On the processor one: a build's workers fill the cores already. Beside a GPU as many as this process may have cores, up
    to eight.
    """
    return 1 if device.startswith("cpu") else min(_MOST_THREADS, len(os.sched_getaffinity(0)))


def in_threads(cut: Callable[[T], R], items: Sequence[T], *, threads: int) -> list[R]:
    """`cut` of every item, in their order; nothing is left running when it returns or raises.

    Args:
        cut: spends its time where Python's lock is free, as Pillow's resizing and coding do, and changes nothing shared.
        items: each thread takes every so-manyth, so that neighbours of one size are shared out.
        threads: 1 calls `cut` here, one item after the other; no more than eight are used.

    Raises:
        Exception: what `cut` raises for the first thread's item that fails.
    """
    threads = min(threads, len(items), _MOST_THREADS)
    if threads <= 1:
        return [cut(item) for item in items]
    shares = [items[first::threads] for first in range(threads)]
    futures = [_pool().submit(lambda share: [cut(item) for item in share], share) for share in shares]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]
    found = [future.result() for future in futures]
    return [found[number % threads][number // threads] for number in range(len(items))]


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Kept between batches: to start threads takes as long as to cut some faces. Idle ones end with the process."""
    return ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="cutting")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked child has the pool, but not its threads
