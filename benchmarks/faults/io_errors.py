"""EIO from single calls of read, write and fsync."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.bench import STORES, Bench, sample
from benchmarks.faults.fault import Fault
from benchmarks.faults.invariants import snapshot
from benchmarks.faults.tracing import calls_made, traced

__all__ = ["FAULT"]

_CALLS = ("read", "pread64", "write", "pwrite64", "sendfile", "copy_file_range", "fsync", "fdatasync")


def _keys(bench: Bench, long: bool) -> list[str]:
    """Every such call of a build of each store."""
    found = []
    for name in STORES:
        log = bench.work / f"io-{name}.log"
        with bench.fresh_store(name) as store:
            child = bench.start_build(store, gated=True)
            with traced(child, log, f"--trace={','.join(_CALLS)}"):
                child.wait()
        found += [f"{name}:{call}:{number}" for call, number in calls_made(log, _CALLS)]
    return found if long else sample(found, 20, seed=2)


def _run(bench: Bench, key: str, *, without: Sequence[str] = ()) -> list[str]:
    """One call of a build fails; the build may fail with it, or go on where it does not matter."""
    name, call, number = key.split(":")
    with bench.fresh_store(name) as store:
        before = snapshot(store)
        child = bench.start_build(store, without=without, gated=True)
        with traced(child, Path("/dev/null"), f"--trace={call}", f"--inject={call}:error=EIO:when={number}"):
            child.wait()
        return bench.after(store, before)


def _twin(bench: Bench) -> list[str]:
    """Writes that report success whatever happens; the last ones of a build, one after another, fail."""
    last = max(int(key.split(":")[2]) for key in _keys(bench, True) if key.startswith("empty:write:"))
    for number in range(last, 0, -1):
        if problems := _run(bench, f"empty:write:{number}", without=["write_errors", "readback", "hash"]):
            return problems
    return []


FAULT = Fault(
    name="io_errors",
    title="EIO on read, write, fsync",
    how="`strace --inject=CALL:error=EIO:when=K` for every read, write and fsync of a build",
    guard="a write that fails reports success, and nothing is read back or compared with its hash",
    keys=_keys,
    run=_run,
    twin=_twin,
    warm=False,
)
