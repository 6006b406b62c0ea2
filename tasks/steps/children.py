"""Child processes that do the heavy work, each supervised by the thread that waits for it.

A child that dies costs the call it was working on, which raises `ChildDiedError`; it is replaced, and no other call is
touched. Children are spawned, never forked, so that they may use a GPU, and leave when their parent is gone.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any, ParamSpec, TypeVar

import pebble

from store.errors import LookalikeError

__all__ = ["ChildDiedError", "children", "run_in_child"]

P = ParamSpec("P")
R = TypeVar("R")

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_pool: Any = None
_waiting: set[Any] = set()


class ChildDiedError(LookalikeError):
    """A child process died (killed, out of memory, crashed in a library); the call can be tried again.

    Args:
        message: one sentence.
        exitcode: the process's; minus the signal's number where one killed it.
    """

    def __init__(self, message: str, exitcode: int = 0) -> None:
        super().__init__(message)
        self.exitcode = exitcode


@contextlib.contextmanager
def children(workers: int) -> Iterator[None]:
    """Keep `workers` children for the calls made in this block, from whatever thread."""
    global _pool  # noqa: PLW0603
    before = _pool
    context = multiprocessing.get_context("spawn")
    _pool = pebble.ProcessPool(max_workers=workers, initializer=_settle, initargs=(os.getpid(),), context=context)
    try:
        yield
        _pool.close()
    except BaseException:
        _pool.stop()
        raise
    finally:
        _pool.join()
        for future in list(_waiting):  # a stopped pool leaves these unanswered, and their threads waiting
            future.cancel()
        _pool = before


def run_in_child(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a step in a child and wait for it; outside `children` it is called here.

    Args:
        function: a step, importable by name.
        args: its arguments, small and picklable.
        kwargs: likewise.

    Raises:
        ChildDiedError: the child died; the message holds its exit code.
    """
    if _pool is None:
        return function(*args, **kwargs)
    future = _pool.schedule(function, args=args, kwargs=kwargs)
    _waiting.add(future)
    try:
        result: R = future.result()
    except pebble.ProcessExpired as error:
        name = getattr(function, "__name__", "a step")
        raise ChildDiedError(
            f"the process that ran {name} died with exit code {error.exitcode}", error.exitcode
        ) from error
    except CancelledError as error:
        raise ChildDiedError("the process was stopped before it was done") from error
    finally:
        _waiting.discard(future)
    return result


def _settle(parent: int) -> None:
    """Run once in each child: one thread a library, and an end when the parent is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # read by each library when it is first imported
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
