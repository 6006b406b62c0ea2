"""strace on a child that waits at its gate: what its build asks of the kernel, and faults in single calls."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.bench import SkippedError
from benchmarks.faults.forks import Child

__all__ = ["DURABLE", "calls_made", "traced"]

DURABLE = (
    "openat", "write", "pwrite64", "sendfile", "copy_file_range", "fsync", "fdatasync", "ftruncate", "link", "linkat",
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
)  # fmt: skip
"""The calls by which a build changes what will be there later; of openat only those that may make a file count."""

_ATTACH_S = 20.0


@contextmanager
def traced(child: Child, log: Path, *options: str) -> Iterator[None]:
    """Attach strace to a gated child and open the gate; on leaving, strace has ended.

    Raises:
        SkippedError: strace is not installed, or may not trace.
    """
    if shutil.which("strace") is None:
        child.kill()
        raise SkippedError("strace is not installed")
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", str(log), *options, "-p", str(child.pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _wait_until_traced(child, tracer)
        child.go()
        yield
    finally:
        try:
            tracer.wait(20)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()
        assert tracer.stderr is not None
        tracer.stderr.close()


def _wait_until_traced(child: Child, tracer: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _ATTACH_S
    while "TracerPid:\t0" in Path(f"/proc/{child.pid}/status").read_text():
        if tracer.poll() is not None or time.monotonic() > deadline:
            said = tracer.stderr.read().decode(errors="replace").strip() if tracer.stderr else ""
            child.kill()
            raise SkippedError(f"strace may not trace a process here ({said[:120]})")
        time.sleep(0.002)
    os.sched_yield()


def calls_made(log: Path, names: Sequence[str]) -> list[tuple[str, int]]:
    """Each call of these names in a log of `strace -f`: its name, and the how-manieth of its name it was."""
    made: dict[str, int] = {}
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        asked = line.split(maxsplit=1)[1] if " " in line else ""
        name = asked.split("(", 1)[0]
        if name not in names:
            continue
        made[name] = made.get(name, 0) + 1
        if name != "openat" or "O_CREAT" in asked:
            calls.append((name, made[name]))
    return calls
