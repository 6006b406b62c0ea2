"""The wall: a photo that kills, hangs or bloats a worker costs that photo, not the run.

Strangers' bytes are decoded in a child process. While it decodes a photo, the child notes which one in a file that outlives
it, and the kernel holds it to limits: processor time, wall time and memory. A child that dies over a photo leaves its name
behind; the shard is computed again without that photo, whose row then says why.
"""

import contextlib
import mmap
import os
import resource
import signal
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from store.errors import LookalikeError
from tasks.steps.children import ChildDiedError, run_in_child

__all__ = [
    "OPEN",
    "PhotoBudget",
    "PhotoKilledError",
    "Wall",
    "death_of",
    "held_to",
    "run_behind_wall",
    "run_once_behind_wall",
]

R = TypeVar("R")

_NONE = -1
_STDERR = 2
_NUMBER = struct.Struct("<q")
_OUT_OF_TIME = {signal.SIGPROF: "cpu_seconds", signal.SIGALRM: "wall_seconds"}


@dataclass(frozen=True)
class PhotoBudget:
    """What the decoding of one photo may take.

    Args:
        cpu_seconds: processor time, which does not hang on how busy the machine is.
        wall_seconds: against a decoder that waits for ever.
        memory_bytes: by which the process's address space may grow.
    """

    cpu_seconds: float = 8.0
    wall_seconds: float = 30.0
    memory_bytes: int = 768 * 2**20


class PhotoKilledError(LookalikeError):
    """Decoding a photo killed the process it was done in; the message says how."""


@dataclass(frozen=True)
class Wall:
    """What a step puts around the decoding of each photo; OPEN lets everything through.

    Args:
        journal: path of the file that holds the number of the photo being decoded.
        budget: a photo's limits; None for none.
        verdicts: reasons, by the number of photos that killed a child before.
    """

    journal: str | None = None
    budget: PhotoBudget | None = None
    verdicts: dict[int, str] = field(default_factory=dict)

    def verdict(self, photo: int) -> str | None:
        """Why this photo must not be decoded again, or None."""
        return self.verdicts.get(photo)

    @contextlib.contextmanager
    def around(self, photo: int) -> Iterator[None]:
        """Note the photo and hold to its limits whatever is done inside, on the main thread of a child.

        No other thread should take much memory meanwhile: the limit is the process's.
        """
        if self.journal is None or self.budget is None:
            yield
            return
        notes = _notes(self.journal)
        _NUMBER.pack_into(notes, 0, photo)
        try:
            with held_to(self.budget):
                yield
        finally:
            _NUMBER.pack_into(notes, 0, _NONE)


OPEN = Wall()
"""No limits: for the process of the user, which a timer would kill."""


def run_behind_wall(function: Callable[..., R], *args: Any, budget: PhotoBudget = PhotoBudget(), **kwargs: Any) -> R:
    """Call a step with a `wall` in a child, again without each photo that kills it.

    A photo whose time is up is guilty at once. A child that dies otherwise over a photo may have been killed from outside:
    the photo is guilty when it happens a second time. A photo kills at most two children, so this ends.

    Args:
        function: a step that takes `wall` and numbers its photos from 0.
        args: its arguments, small and picklable.
        budget: a photo's limits.
        kwargs: likewise.

    Raises:
        ChildDiedError: a child died while no photo was being decoded.
    """
    verdicts: dict[int, str] = {}
    suspects: set[int] = set()
    with tempfile.NamedTemporaryFile(prefix="lookalike-") as journal:
        while True:
            journal.seek(0)
            journal.write(_NUMBER.pack(_NONE))
            journal.flush()
            wall = Wall(journal=journal.name, budget=budget, verdicts=dict(verdicts))
            try:
                return run_in_child(function, *args, **kwargs, wall=wall)
            except ChildDiedError as died:
                journal.seek(0)
                (photo,) = _NUMBER.unpack(journal.read(_NUMBER.size))
                if photo == _NONE or photo in verdicts:
                    raise
                reason = _reason(died.exitcode, budget)
                if reason is None and photo in suspects:
                    reason = f"the decoder died of it twice ({_cause(died.exitcode)})"
                if reason is not None:
                    verdicts[photo] = reason
                suspects.add(photo)


def run_once_behind_wall(
    function: Callable[..., R], *args: Any, budget: PhotoBudget = PhotoBudget(), **kwargs: Any
) -> R:
    """Call a function that decodes one photo in a fresh process that holds nothing else.

    Args:
        function: importable by name; its module decides how long the process takes to start.
        args: its arguments, picklable.
        budget: the photo's limits.
        kwargs: likewise.

    Raises:
        PhotoKilledError: the process died; the message says of what.
        Exception: what the function raises.
    """
    from concurrent.futures.process import BrokenProcessPool  # noqa: PLC0415

    from pebble import ProcessExpired, ProcessPool  # noqa: PLC0415

    context = _spawn()
    with ProcessPool(max_workers=1, context=context) as pool:
        future = pool.schedule(_within, args=(budget, function, args, kwargs))
        try:
            result: R = future.result()
        except ProcessExpired as died:
            raise PhotoKilledError(death_of(died.exitcode, budget)) from died
        except BrokenProcessPool as died:  # the pool noticed first, and does not say of what
            raise PhotoKilledError("the decoder died of it") from died
    return result


def _spawn() -> Any:
    import multiprocessing  # noqa: PLC0415

    return multiprocessing.get_context("spawn")


def _within(budget: PhotoBudget, function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
    with held_to(budget):
        return function(*args, **kwargs)


@contextlib.contextmanager
def held_to(budget: PhotoBudget) -> Iterator[None]:
    """Hold this process to a photo's limits, on its main thread, and keep what a decoder prints to itself."""
    with _limits(budget), _silence():
        yield


def death_of(exitcode: int, budget: PhotoBudget) -> str:
    """Why a process died over a photo, as a sentence.

    Args:
        exitcode: minus the signal's number where one killed it.
        budget: that it was held to.
    """
    return _reason(exitcode, budget) or f"the decoder died of it ({_cause(exitcode)})"


@contextlib.contextmanager
def _limits(budget: PhotoBudget) -> Iterator[None]:
    """The kernel kills this process when the time is up, and refuses it memory over the limit."""
    for number in _OUT_OF_TIME:
        signal.signal(number, signal.SIG_DFL)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = _address_space() + budget.memory_bytes
    signal.setitimer(signal.ITIMER_PROF, budget.cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, budget.wall_seconds)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_lower(allowed, soft, hard), hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What a decoder's C code prints about a file goes nowhere: the photo's row says what was wrong, to whom it matters."""
    kept, nowhere = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(nowhere)


def _lower(*limits: int) -> int:
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=resource.RLIM_INFINITY)


def _address_space() -> int:
    """Bytes of this process's address space."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[0]) * mmap.PAGESIZE


_mapped: dict[str, mmap.mmap] = {}


def _notes(journal: str) -> mmap.mmap:
    """The journal, mapped: what stands in it survives this process."""
    if journal not in _mapped:
        _mapped.clear()  # of shards that are done
        with open(journal, "r+b") as file:
            _mapped[journal] = mmap.mmap(file.fileno(), _NUMBER.size)
    return _mapped[journal]


def _reason(exitcode: int, budget: PhotoBudget) -> str | None:
    """The sentence for a child whose time was up, None for any other death."""
    limit = _OUT_OF_TIME.get(-exitcode)  # type: ignore[call-overload]
    if limit is None:
        return None
    what = "processor time" if limit == "cpu_seconds" else "time"
    return f"decoding it took more than {getattr(budget, limit):g} s of {what}"


def _cause(exitcode: int) -> str:
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"exit code {exitcode}"
