"""Processes that outlive the command that started them, told from strangers by pid and start time."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Started", "start", "stop"]

_PROC = Path("/proc")
_STARTED_FIELD = 19
"""Of /proc/<pid>/stat, counted after the command's name: clock ticks since boot."""
_PARENT_FIELD = 1


@dataclass(frozen=True)
class Started:
    """A process of ours; a pid alone may belong to somebody else by now.

    Attributes:
        pid: its number.
        ticks: when it started, in clock ticks since the machine did.
    """

    pid: int
    ticks: int

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        fields = _stat(self.pid)
        return bool(fields) and fields[0] != "Z" and int(fields[_STARTED_FIELD]) == self.ticks


def start(command: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path) -> Started:
    """Start a process in a session of its own; what it prints goes to the log, which begins anew."""
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603
            list(command),
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    return Started(process.pid, int(_stat(process.pid)[_STARTED_FIELD]))


def stop(started: Started, *, patience_s: float) -> None:
    """End a process and all that it started: asked first, killed when patience is over."""
    if not started.alive:
        return
    family = [started, *_descendants(started.pid)]
    _signal(family[:1], signal.SIGTERM)
    _wait(family, patience_s)
    _signal(family, signal.SIGKILL)
    _wait(family, patience_s)


def _signal(family: Sequence[Started], number: signal.Signals) -> None:
    for one in family:
        if one.alive:
            os.kill(one.pid, number)


def _wait(family: Sequence[Started], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(one.alive for one in family) and time.monotonic() < deadline:
        _reap(family)
        time.sleep(0.1)
    _reap(family)


def _reap(family: Sequence[Started]) -> None:
    """Take the leave of those that this very process started."""
    for one in family:
        try:
            os.waitpid(one.pid, os.WNOHANG)
        except ChildProcessError:
            continue


def _descendants(pid: int) -> list[Started]:
    parents = {int(entry.name): _stat(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdigit()}
    found, ahead = [], [pid]
    while ahead:
        parent = ahead.pop()
        children = [one for one, fields in parents.items() if fields and int(fields[_PARENT_FIELD]) == parent]
        found += [Started(one, int(parents[one][_STARTED_FIELD])) for one in children]
        ahead += children
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; none where there is no such process."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
