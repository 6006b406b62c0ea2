"""A clock three days off: builds before and after it in one store."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.bench import STORES, Bench, SkippedError
from benchmarks.faults.fault import Fault
from benchmarks.faults.invariants import problems_of_store, snapshot

__all__ = ["FAULT"]


def _keys(bench: Bench, long: bool) -> list[str]:
    """Three days back, and three days on."""
    return [f"{name}:{days}" for name in STORES for days in ("-3d", "+3d")] if long else ["second:-3d"]


def _run(bench: Bench, key: str) -> list[str]:
    """Build under the wrong clock what the right one has begun, and again under the right one."""
    name, days = key.split(":")
    with bench.fresh_store(name) as store:
        before = snapshot(store)
        problems = _build(bench, store, bench.source, days, ())
        return problems + problems_of_store(store, before=before) + bench.after(store, before)


def _twin(bench: Bench) -> list[str]:
    """Versions numbered by the clock: half of the photos now, all of them three days ago."""
    some = bench.work / "some.txt"
    some.write_text("\n".join(str(path) for path in sorted(Path(bench.source).rglob("*_0000.jpg"))) + "\n")
    with bench.fresh_store("empty") as store:
        _build(bench, store, str(some), "+0d", ["claim"])
        _build(bench, store, bench.source, "-3d", ["claim"])
        return problems_of_store(store)


def _build(bench: Bench, store: Path, source: str, days: str, without: Sequence[str]) -> list[str]:
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
    if library is None:
        raise SkippedError("libfaketime is not installed")
    command = [sys.executable, "-m", "benchmarks.faults.small_build", str(store), source, bench.stored]
    command += [f"--without={guard}" for guard in without]
    env = os.environ | {"LD_PRELOAD": str(library), "FAKETIME": days, "FAKETIME_DONT_RESET": "1"}
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True, timeout=300)
    return [f"the build failed: {done.stderr[-300:]}"] if done.returncode else []


FAULT = Fault(
    name="clock",
    title="a clock 3 days off",
    how="libfaketime under a build in a process of its own",
    guard="versions are numbered by the clock",
    keys=_keys,
    run=_run,
    twin=_twin,
)
