"""Who is told how far a stage has come: the command's bar, or nobody."""

import contextlib
import time
from collections.abc import Callable, Iterator

__all__ = ["Stages", "listening", "report"]

Listener = Callable[[str, int, int], None]

_listener: Listener | None = None


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` of every report made in this block: the stage, what is done, and of how much."""
    global _listener  # noqa: PLW0603
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def report(stage: str, done: int, total: int) -> None:
    """Tell whoever listens that `done` of `total` units of a stage are over."""
    if _listener is not None:
        _listener(stage, done, total)


class Stages:
    """The seconds of each stage, and of all together since this was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of this block as the stage's."""
        start = time.monotonic()
        report(name, 0, 0)
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - start

    def seconds(self) -> dict[str, float]:
        """Seconds a stage, and their `total` from the first line to now."""
        total = time.monotonic() - self._start
        return {**{name: round(s, 3) for name, s in self._seconds.items()}, "total": round(total, 3)}
