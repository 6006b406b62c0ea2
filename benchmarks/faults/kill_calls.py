"""kill -9 at every durable system call of a build, one by one."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.bench import STORES, Bench, sample
from benchmarks.faults.fault import Fault
from benchmarks.faults.invariants import snapshot
from benchmarks.faults.tracing import DURABLE, calls_made, traced

__all__ = ["FAULT"]


def _keys(bench: Bench, long: bool) -> list[str]:
    """Every durable call of a build of each store, by its number among those of its name."""
    found = []
    for name in STORES:
        log = bench.work / f"calls-{name}.log"
        with bench.fresh_store(name) as store:
            child = bench.start_build(store, gated=True)
            with traced(child, log, f"--trace={','.join(DURABLE)}"):
                ended = child.wait()
        assert ended.error is None, ended.error
        found += [f"{name}:{call}:{number}" for call, number in calls_made(log, DURABLE)]
    return found if long else sample(found, 30, seed=1)


def _run(bench: Bench, key: str, *, without: Sequence[str] = ()) -> list[str]:
    """The kernel kills the build as it enters the call."""
    name, call, number = key.split(":")
    with bench.fresh_store(name) as store:
        before = snapshot(store)
        child = bench.start_build(store, without=without, gated=True)
        inject = f"--inject={call}:signal=SIGKILL:when={number}"
        with traced(child, Path("/dev/null"), f"--trace={call}", inject):
            child.wait()
        return bench.after(store, before)


def _twin(bench: Bench) -> list[str]:
    """Files written in place, half and half; killed at every fourth write until one was half."""
    for number in range(1, 80, 4):
        if problems := _run(bench, f"empty:write:{number}", without=["staging"]):
            return problems
    return []


FAULT = Fault(
    name="kill_calls",
    title="kill -9 at every durable system call",
    how="`strace --inject=CALL:signal=SIGKILL:when=K` for every write, fsync, link, rename, unlink, mkdir and file made",
    guard="files are written where they will be read instead of being moved into place whole",
    keys=_keys,
    run=_run,
    twin=_twin,
    warm=False,
)
