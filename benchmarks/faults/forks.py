"""Children of a process that has imported everything: a trial starts in milliseconds and dies alone."""

import json
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Child", "Ended", "fork"]


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        value: what its function returned, through JSON; None otherwise.
        error: "Class: message" of what it raised; None otherwise.
        refused: it raised one of lookalike's own errors, which are one sentence for the user.
        signal: that killed it, or 0.
        seconds: from its start to its end.
    """

    value: Any
    error: str | None
    refused: bool
    signal: int
    seconds: float


class Child:
    """A forked child in a process group of its own; it waits for `go` where it was forked with a gate."""

    def __init__(self, pid: int, answer: int, gate: int | None) -> None:
        self.pid = pid
        self._answer, self._gate = answer, gate
        self._started = time.monotonic()

    def go(self) -> None:
        """Open the gate."""
        assert self._gate is not None
        os.write(self._gate, b".")
        os.close(self._gate)
        self._gate = None

    def kill(self) -> None:
        """Send SIGKILL to the whole group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float = 120.0) -> Ended:
        """Its end; one that takes longer is killed and counts as an error."""
        said, late = _read_all(self._answer, time.monotonic() + timeout_s)
        if late:
            self.kill()
        _, status = os.waitpid(self.pid, 0)
        os.close(self._answer)
        seconds = time.monotonic() - self._started
        if late:
            return Ended(None, f"TimeoutError: it did not end within {timeout_s:.0f} s", False, 0, seconds)
        by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        try:
            told = json.loads(said)
        except ValueError:
            told = {} if by else {"error": f"it ended with {status} and without an answer"}
        return Ended(told.get("value"), told.get("error"), bool(told.get("refused")), by, seconds)


def fork(run: Callable[[], Any], *, gated: bool = False) -> Child:
    """Run a function in a child; what it returns must be JSON."""
    answer, told = os.pipe()
    waits, gate = os.pipe() if gated else (None, None)
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        if gate is not None:
            os.close(gate)
        _live(run, told, waits)
    os.close(told)
    if waits is not None:
        os.close(waits)
    return Child(pid, answer, gate)


def _live(run: Callable[[], Any], told: int, waits: int | None) -> None:
    try:
        os.setpgid(0, 0)
        if waits is not None and not os.read(waits, 1):
            os._exit(1)
        answer: dict[str, Any] = {"value": run()}
    except BaseException as error:  # whatever it was, the parent judges it
        refused = any(kind.__name__ == "LookalikeError" for kind in type(error).__mro__)
        answer = {"error": f"{type(error).__name__}: {error}"[:500], "refused": refused}
    try:
        data = json.dumps(answer).encode()
        while data:
            data = data[os.write(told, data) :]
    finally:
        os._exit(0)


def _read_all(descriptor: int, deadline: float) -> tuple[bytes, bool]:
    said = b""
    while True:
        # What was said counts, though this process may have been stopped past its deadline meanwhile.
        left = max(0.0, deadline - time.monotonic())
        if not select.select([descriptor], [], [], left)[0]:
            return said, True
        if not (piece := os.read(descriptor, 65536)):
            return said, False
        said += piece
