"""What people see while a command runs: a bar on a terminal, plain lines elsewhere, all on stderr."""

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tasks.steps.progress import listening

__all__ = ["say", "showing_progress"]

_console = Console(stderr=True)
_PLAIN_EVERY_S = 10.0


def say(sentence: str) -> None:
    """One line on stderr."""
    if _console.is_terminal:
        _console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    else:
        print(sentence, file=sys.stderr, flush=True)


@contextlib.contextmanager
def showing_progress() -> Iterator[None]:
    """Show the stages of a flow in this block, as they report themselves."""
    if _console.is_terminal:
        with _bars() as bars, listening(bars):
            bars("start", 0, 0)
            yield
    else:
        lines = _Lines()
        lines("start", 0, 0)
        with listening(lines):
            yield


class _Bars:
    """One bar a stage; the last one is under way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, int] = {}
        self._last: str | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._last and self._last is not None:
            self._finish(self._last)
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=None)
        self._last = stage
        self._progress.update(self._tasks[stage], completed=done, total=total or None)  # type: ignore[arg-type]

    def _finish(self, stage: str) -> None:
        task = self._progress.tasks[self._tasks[stage]]
        total = task.total or 1
        self._progress.update(task.id, total=total, completed=total)

    def close(self) -> None:
        if self._last is not None:
            self._finish(self._last)


@contextlib.contextmanager
def _bars() -> Iterator[_Bars]:
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console) as progress:
        bars = _Bars(progress)
        yield bars
        bars.close()


class _Lines:
    """A line when a stage starts, and at most one every ten seconds while it goes on."""

    def __init__(self) -> None:
        self._stage = ""
        self._said = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        is_end = total > 0 and done == total
        if stage == self._stage and now - self._said < _PLAIN_EVERY_S and not is_end:
            return
        self._stage, self._said = stage, now
        say(f"{stage} {done}/{total}" if total else stage)
