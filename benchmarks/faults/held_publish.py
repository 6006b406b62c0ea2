"""A publish held at each of its steps while another build runs through."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import STORES, Bench, sample
from benchmarks.faults.fault import Fault
from benchmarks.faults.forks import Child, fork
from benchmarks.faults.guards import remove_guards
from benchmarks.faults.invariants import problems_of_store, snapshot

__all__ = ["FAULT"]

_STEPS = ("open", "fsync", "link", "replace", "rename", "unlink", "mkdir")
_PATIENCE_S = 3.0


def _keys(bench: Bench, long: bool) -> list[str]:
    """Every call of open, fsync, link, replace, unlink and mkdir of a publish into each store."""
    found = [f"{name}:{step}" for name in STORES for step in range(1, _steps_of(bench.work, name) + 1)]
    return found if long else sample(found, 12, seed=5)


def _run(bench: Bench, key: str, *, without: Sequence[str] = ()) -> list[str]:
    """Stop one build at a step of its publish, let another run, then let the first go on: one of them is published."""
    name, step = key.split(":")
    with bench.fresh_store(name) as store:
        before = snapshot(store)
        held = _held_build(bench, store, int(step), without)
        _, status = os.waitpid(held.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), status
        other = bench.start_build(store, without=without)
        _wait_a_while(other)  # while the first holds the kernel's lock of CURRENT, the other has to wait for it
        os.kill(held.pid, signal.SIGCONT)
        ended = [other.wait(), held.wait()]
        won = [one.value for one in ended if one.error is None and not one.signal and one.value is not None]
        problems = [f"I3: {len(won)} of 2 builds on one parent were published, as {won}"] * (len(won) != 1)
        problems += [f"a loser ended without a sentence: {one.error}" for one in ended if one.error and not one.refused]
        return problems + problems_of_store(store, before=before) + bench.after(store, before)


def _twin(bench: Bench) -> list[str]:
    """CURRENT is written whatever it holds."""
    for step in range(1, _steps_of(bench.work, "second") + 1, 3):
        if problems := _run(bench, f"second:{step}", without=["link", "swap"]):
            return problems
    return []


def _held_build(bench: Bench, store: Path, step: int, without: Sequence[str]) -> Child:
    def held() -> Any:
        remove_guards(without)
        from benchmarks.faults.small_build import draft_version, publish_version  # noqa: PLC0415

        drafted = draft_version(str(store), bench.source, bench.stored)
        assert drafted is not None
        _count_steps(lambda done: os.kill(os.getpid(), signal.SIGSTOP) if done == step else None)
        return publish_version(drafted[0], store=str(store), plan=drafted[1])

    return fork(held)


@lru_cache(maxsize=8)
def _steps_of(work: Path, name: str) -> int:
    bench = Bench(work)

    def counted() -> Any:
        from benchmarks.faults.small_build import draft_version, publish_version  # noqa: PLC0415

        drafted = draft_version(str(store), bench.source, bench.stored)
        assert drafted is not None
        most = [0]
        _count_steps(lambda done: most.__setitem__(0, done))
        publish_version(drafted[0], store=str(store), plan=drafted[1])
        return most[0]

    with bench.fresh_store(name) as store:
        ended = fork(counted).wait()
        assert ended.error is None, ended.error
        return int(ended.value)


def _count_steps(reached: Callable[[int], object]) -> None:
    """Call `reached` with 1, 2, 3, … before each step that changes the disk, in this process for good."""
    done = [0]

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            done[0] += 1
            reached(done[0])
            return real(*args, **kwargs)

        return step

    for name in _STEPS:
        setattr(os, name, counting(getattr(os, name)))


def _wait_a_while(child: Child) -> None:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.005)


FAULT = Fault(
    name="held_publish",
    title="each publish step held while another build runs through",
    how="SIGSTOP at every step of a publish that changes the disk, a whole other build, SIGCONT",
    guard="files overwrite what stands there, and CURRENT is written whatever it holds",
    keys=_keys,
    run=_run,
    twin=_twin,
)
