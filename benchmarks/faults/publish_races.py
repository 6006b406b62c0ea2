"""Eight processes publish at once, all planned on one parent."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import STORES, Bench
from benchmarks.faults.fault import Fault
from benchmarks.faults.forks import Child, fork
from benchmarks.faults.guards import remove_guards
from benchmarks.faults.invariants import problems_of_store, snapshot

__all__ = ["FAULT"]

_PROCESSES = 8


def _keys(bench: Bench, long: bool) -> list[str]:
    """Rounds; a new store each."""
    return [f"{STORES[n % 2]}:{n}" for n in range(500 if long else 10)]


def _run(bench: Bench, key: str, *, without: Sequence[str] = ()) -> list[str]:
    """Exactly one is published, the others end with a sentence."""
    with bench.fresh_store(key.split(":", maxsplit=1)[0]) as store:
        before = snapshot(store)
        racers, start = _racers(bench, store, without)
        os.close(start)
        ended = [child.wait() for child in racers]
        won = [one.value for one in ended if one.error is None and not one.signal]
        problems = [f"I3: {len(won)} of {len(ended)} builds on one parent were published, as {won}"] * (len(won) != 1)
        problems += [f"a loser ended without a sentence: {one.error}" for one in ended if one.error and not one.refused]
        return problems + problems_of_store(store, before=before) + bench.after(store, before)


def _twin(bench: Bench) -> list[str]:
    """A few rounds in which files overwrite what stands there, and CURRENT is written whatever it holds."""
    for seed in range(20):
        if problems := _run(bench, f"second:{seed}", without=["link", "swap"]):
            return problems
    return []


def _racers(bench: Bench, store: Path, without: Sequence[str]) -> tuple[list[Child], int]:
    """Children that have drafted a version and wait to publish it; closing the descriptor starts them all."""
    ready, tell = os.pipe()
    waits, start = os.pipe()

    def race() -> Any:
        os.close(start)
        remove_guards(without)
        from benchmarks.faults.small_build import draft_version, publish_version  # noqa: PLC0415

        drafted = draft_version(str(store), bench.source, bench.stored)
        assert drafted is not None
        os.write(tell, b".")
        os.read(waits, 1)
        return publish_version(drafted[0], store=str(store), plan=drafted[1])

    racers = [fork(race) for _ in range(_PROCESSES)]
    os.close(tell)
    os.close(waits)
    said = 0
    while said < _PROCESSES and (some := os.read(ready, _PROCESSES)):
        said += len(some)
    os.close(ready)
    return racers, start


FAULT = Fault(
    name="publish_races",
    title="publish races of 8 processes",
    how="a trial is a round: 8 processes with a checked draft each publish at the same moment",
    guard="files overwrite what stands there, and CURRENT is written whatever it holds",
    keys=_keys,
    run=_run,
    twin=_twin,
)
