"""Who is told how far a stage has come: the command's bar, or nobody."""

import contextlib
import time
from collections.abc import Callable, Iterator

__all__ = ["Stages", "listening", "report", "stage_line"]

Listener = Callable[[str, int, int], None]
Teller = Callable[[str, float, dict[str, int]], None]

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


def stage_line(name: str, seconds: float, counts: dict[str, int]) -> str:
    """One line of a log on a stage that is over: `align: 1,204 photos, 5 shards in 61.2 s (19.7 photos/s)`.

    Args:
        name: of the stage.
        seconds: it took.
        counts: how many of what; the first is what the speed is told in.
    """
    told = ", ".join(f"{n:,} {what}" for what, n in counts.items())
    first, n = next(iter(counts.items()), ("", 0))
    speed = f" ({n / seconds:,.1f} {first}/s)" if n and seconds >= 1 else ""
    return f"{name}: {told + ' in ' if told else ''}{seconds:.1f} s{speed}"


class Stages:
    """The seconds of each stage, and of all together since this was made.

    Args:
        tell: is told of each stage that is over: its name, seconds, and how many of what.
    """

    def __init__(self, tell: Teller | None = None) -> None:
        self._start = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._tell = tell

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[dict[str, int]]:
        """Count the time of this block as the stage's; the block may say how many of what, in the dictionary it is given."""
        start = time.monotonic()
        counts: dict[str, int] = {}
        report(name, 0, 0)
        try:
            yield counts
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - start
        if self._tell is not None:
            self._tell(name, time.monotonic() - start, counts)

    def seconds(self) -> dict[str, float]:
        """Seconds a stage, and their `total` from the first line to now."""
        total = time.monotonic() - self._start
        return {**{name: round(s, 3) for name, s in self._seconds.items()}, "total": round(total, 3)}
