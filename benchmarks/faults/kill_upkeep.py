"""kill -9 at every durable system call of a vacuum and of a rollback."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import Bench, SkippedError, sample
from benchmarks.faults.fault import Fault
from benchmarks.faults.forks import Child, fork
from benchmarks.faults.guards import remove_guards
from benchmarks.faults.invariants import problems_of_store
from benchmarks.faults.tracing import DURABLE, calls_made, traced

__all__ = ["FAULT", "two_versions"]

_STEPS = {"vacuum": ("vacuum_store", "vacuum_store"), "rollback": ("roll_back", "roll_back")}


def _keys(bench: Bench, long: bool) -> list[str]:
    """Every durable call of both."""
    found = [f"{kind}:{call}:{number}" for kind in _STEPS for call, number in _calls(bench.work, kind)]
    return found if long else sample(found, 10, seed=6)


def _run(bench: Bench, key: str, *, without: tuple[str, ...] = ()) -> list[str]:
    """The kernel kills it as it enters the call; what is left is whole, and the same again runs through."""
    kind, call, number = key.split(":")
    with two_versions(bench) as store:
        child = _start(kind, store, without)
        with traced(child, Path("/dev/null"), f"--trace={call}", f"--inject={call}:signal=SIGKILL:when={number}"):
            child.wait()
        problems = problems_of_store(store)
        again = _start(kind, store, ())
        again.go()
        ended = again.wait()
        problems += [f"the rerun failed: {ended.error}"] * (ended.error is not None)
        return problems + bench.after(store, {})


def _twin(bench: Bench) -> list[str]:
    """A vacuum that takes what is needed first: the shards of all versions."""
    with two_versions(bench) as store:
        for path in sorted((store / "faces").rglob("*.parquet")):
            path.unlink()
            if problems := problems_of_store(store):
                return problems
    return []


def _start(kind: str, store: Path, without: tuple[str, ...]) -> Child:
    step = _step(kind)

    def work() -> Any:
        remove_guards(without)
        step(store=str(store), keep=1) if kind == "vacuum" else step(1, store=str(store))

    return fork(work, gated=True)


def _step(kind: str) -> Callable[..., Any]:
    module, name = _STEPS[kind]
    if importlib.util.find_spec(f"tasks.steps.{module}") is None:
        raise SkippedError(f"this store has no {kind}")
    return getattr(importlib.import_module(f"tasks.steps.{module}"), name)  # type: ignore[no-any-return]


@lru_cache(maxsize=4)
def _calls(work: Path, kind: str) -> list[tuple[str, int]]:
    bench, log = Bench(work), work / f"calls-{kind}.log"
    _step(kind)
    with two_versions(bench) as store:
        child = _start(kind, store, ())
        with traced(child, log, f"--trace={','.join(DURABLE)}"):
            ended = child.wait()
    assert ended.error is None, ended.error
    return calls_made(log, DURABLE)


@contextmanager
def two_versions(bench: Bench) -> Iterator[Path]:
    """A store with two versions and the encoder's weights, gone afterwards."""
    with bench.fresh_store("second") as store:
        shutil.copytree(bench.base / "encoders", store / "encoders", dirs_exist_ok=True)  # a rollback wants its weights
        built = bench.build(store)
        assert built.error is None, built.error
        yield store


FAULT = Fault(
    name="kill_upkeep",
    title="kill -9 at every durable system call of a vacuum and a rollback",
    how="`strace --inject=CALL:signal=SIGKILL:when=K`; then the same again, and a build",
    guard="a shard goes before the versions that stand on it",
    keys=_keys,
    run=_run,
    twin=_twin,
    warm=False,
)
