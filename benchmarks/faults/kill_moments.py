"""kill -9 of the process group at random moments of a build."""

import random
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from benchmarks.faults.bench import STORES, Bench
from benchmarks.faults.fault import Fault
from benchmarks.faults.invariants import snapshot

__all__ = ["FAULT"]


def _keys(bench: Bench, long: bool) -> list[str]:
    """Half of the kills meet each store."""
    return [f"{STORES[n % 2]}:{n}" for n in range(1000 if long else 30)]


def _run(bench: Bench, key: str, *, without: Sequence[str] = ()) -> list[str]:
    """Kill a build at a moment drawn from the time that an undisturbed one took."""
    name = key.split(":", maxsplit=1)[0]
    lasts_s = _lasts_s(bench.work, name)
    with bench.fresh_store(name) as store:
        before = snapshot(store)
        child = bench.start_build(store, without=without)
        time.sleep(random.Random(key).uniform(0, lasts_s))
        child.kill()
        child.wait()
        return bench.after(store, before)


@lru_cache(maxsize=2)
def _lasts_s(work: Path, name: str) -> float:
    bench = Bench(work)
    durations = []
    for _ in range(3):
        with bench.fresh_store(name) as store:
            durations.append(bench.build(store).seconds)
    return sorted(durations)[1]


def _twin(bench: Bench) -> list[str]:
    """Files written in place, half and half, until a kill falls between: surely soon."""
    for seed in range(400):
        if problems := _run(bench, f"empty:{seed}", without=["staging"]):
            return problems
    return []


FAULT = Fault(
    name="kill_moments",
    title="kill -9 at random moments",
    how="SIGKILL to the process group of a build at a moment drawn from its duration",
    guard="files are written where they will be read instead of being moved into place whole",
    keys=_keys,
    run=_run,
    twin=_twin,
    warm=False,
)
