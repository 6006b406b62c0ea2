"""Child processes that do the heavy work, each supervised by the thread that waits for it.

A child that dies costs the call it was working on, which raises `ChildDiedError`; it is replaced, and no other call is
touched. Children are spawned, never forked, so that they may use a GPU, and leave when their parent is gone.
"""

import contextlib
import fcntl
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import pebble

from store.errors import LookalikeError

__all__ = ["ChildDiedError", "ChildrenStoppedError", "again_after_death", "children", "gpus", "run_in_child"]

P = ParamSpec("P")
R = TypeVar("R")

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_GPU_WAIT_S = 30.0

_pool: Any = None
_pool_of_block: ContextVar[Any] = ContextVar("pool", default=None)
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


class ChildrenStoppedError(LookalikeError):
    """The block that kept the children has ended, by an error or because its run was cancelled: calling again is of no use."""


@contextlib.contextmanager
def children(workers: int, *, gpus: Sequence[str] = ()) -> Iterator[None]:
    """Keep `workers` children for the calls made in this block, from whatever thread.

    Args:
        workers: how many.
        gpus: as CUDA_VISIBLE_DEVICES names them, at least as many: each child sees one that no other child sees.
    """
    global _pool  # noqa: PLW0603
    before = _pool
    settled = (os.getpid(), tuple(gpus), tempfile.mkdtemp(prefix="lookalike-gpus-") if gpus else "")
    _pool = _Pool(workers, settled)
    token = _pool_of_block.set(_pool)
    try:
        yield
        _pool.end(at_once=False)
    except BaseException:
        _pool.end(at_once=True)
        raise
    finally:
        for future in list(_waiting):  # a stopped pool leaves these unanswered, and their threads waiting
            future.cancel()
        _pool = before
        with contextlib.suppress(ValueError):  # a cluster's worker ends it in another context
            _pool_of_block.reset(token)
        if settled[2]:
            shutil.rmtree(settled[2], ignore_errors=True)


class _Pool:
    """Children, and others in their place where one that had nothing to do died: pebble then gives up all of them.

    Args:
        workers: how many.
        settled: what each is told at its start.
    """

    def __init__(self, workers: int, settled: tuple[Any, ...]) -> None:
        self._workers, self._settled = workers, settled
        self._turn, self._ended, self._used = threading.Lock(), False, False
        self._children = self._made()

    def _made(self) -> Any:
        context = multiprocessing.get_context("spawn")
        return pebble.ProcessPool(
            max_workers=self._workers, initializer=_settle, initargs=self._settled, context=context
        )

    def schedule(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call's future; RuntimeError where the block has ended."""
        with self._turn:
            self._used = True
            if not self._ended and not self._children.active:
                self._children.stop()
                self._children.join()
                self._children = self._made()
            return self._children.schedule(function, args=args, kwargs=kwargs)

    def end(self, *, at_once: bool) -> None:
        """Wait until all is done that was scheduled, or stop it."""
        with self._turn:
            self._ended = True
        given_up = self._used and not self._children.active  # to ask that of unused ones would start them
        if at_once or given_up:  # for whose calls one would wait without end
            self._children.stop()
        else:
            self._children.close()
        self._children.join()


def run_in_child(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a step in a child and wait for it; outside `children` it is called here.

    A thread that was given this context inside the block, as Prefect's are, stays bound to it: once the block has ended, a step
    that is tried again there is not begun in the process of the user.

    Args:
        function: a step, importable by name.
        args: its arguments, small and picklable.
        kwargs: likewise.

    Raises:
        ChildDiedError: the child died; the message holds its exit code.
        ChildrenStoppedError: the block has ended.
    """
    pool = _pool_of_block.get() or _pool
    if pool is None:
        return function(*args, **kwargs)
    try:
        future = pool.schedule(function, args, kwargs)
    except RuntimeError as error:
        raise ChildrenStoppedError("the processes were stopped before this was begun") from error
    _waiting.add(future)
    try:
        result: R = future.result()
    except pebble.ProcessExpired as error:
        name = getattr(function, "__name__", "a step")
        raise ChildDiedError(
            f"the process that ran {name} died with exit code {error.exitcode}", error.exitcode
        ) from error
    except BrokenProcessPool as error:  # none was at work: nobody knows which call the dead one was about to take
        raise ChildDiedError("a process died before it had begun what it was given") from error
    except CancelledError as error:
        raise ChildrenStoppedError("the processes were stopped before this was done") from error
    finally:
        _waiting.discard(future)
    return result


def again_after_death(call: Callable[[], R], *, retries: int, delay_s: float = 1.0) -> R:
    """The call's result, tried again each time that its child died, for whoever has no Prefect to do it.

    Args:
        call: waits for a child, and may be repeated.
        retries: how often it is tried again.
        delay_s: before the first retry; twice as long before each further one, so that memory may become free.

    Raises:
        ChildDiedError: the last child died too.
        Exception: what the call raises otherwise, at once.
    """
    for number in range(retries):
        try:
            return call()
        except ChildDiedError:
            time.sleep(delay_s * 2**number)
    return call()


def gpus() -> tuple[str, ...]:
    """This machine's GPUs, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        LookalikeError: there is none.
    """
    import torch  # noqa: PLC0415

    count = torch.cuda.device_count()
    if not count:
        raise LookalikeError("no GPU was found here: compute on the processor, with the device cpu")
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple(visible[:count]) or tuple(str(n) for n in range(count))


def _settle(parent: int, gpus: tuple[str, ...], slots: str) -> None:
    """Run once in each child: one thread a library, a GPU of its own, and an end when the parent is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = _free_one(gpus, slots)  # before torch is imported
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # read by each library when it is first imported
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


def _free_one(gpus: tuple[str, ...], slots: str) -> str:
    """The first GPU that no other child holds; the kernel frees it when this child dies, however it does."""
    until = time.monotonic() + _GPU_WAIT_S
    while True:
        for number, gpu in enumerate(gpus):
            slot = os.open(os.path.join(slots, str(number)), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            try:
                fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(slot)
            else:
                return gpu  # the descriptor stays open as long as this process lives
        if time.monotonic() > until:
            raise LookalikeError(f"all {len(gpus)} GPUs are taken by other children")
        time.sleep(0.05)  # the one that died is still being cleared away
