"""kill -9 of the real `lookalike build`, Prefect and its children with it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

from benchmarks.faults.bench import Bench, SkippedError
from benchmarks.faults.fault import Fault
from benchmarks.faults.invariants import problems_of_content, problems_of_store, snapshot

__all__ = ["FAULT"]

_LASTS_S = 25.0


def _keys(bench: Bench, long: bool) -> list[str]:
    """50 trials of one kill, or one trial of five: starts and reruns of Prefect take most of the time."""
    return [f"{n}:1" for n in range(50)] if long else ["0:5"]


def _run(bench: Bench, key: str) -> list[str]:
    """Kill the command's process group at a moment of its run, some times over; the rerun must end with the same content."""
    with bench.fresh_store("second") as store:
        shutil.copytree(bench.base / "encoders", store / "encoders", dirs_exist_ok=True)
        before = snapshot(store)
        draw, problems = random.Random(key), []
        for _ in range(int(key.split(":")[1])):
            _kill_one(bench, store, draw.uniform(0.2, 1.0) * _last_duration(bench))
            problems += problems_of_store(store, before=before)
        started = time.monotonic()
        with _command(bench, store) as process:
            code = process.wait(300)
        _remember_duration(bench, time.monotonic() - started)
        problems += [f"I4: the rerun ended with {code}"] * (code != 0)
        problems += [f"after the rerun, {what}" for what in problems_of_store(store, before=before)]
        return problems + problems_of_content(store, bench.expected)


def _kill_one(bench: Bench, store: Path, after_s: float) -> None:
    with _command(bench, store) as process:
        until = time.monotonic() + after_s
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.02)
        with suppress(ProcessLookupError):  # it ended before
            os.killpg(process.pid, signal.SIGKILL)


def _twin(bench: Bench) -> list[str]:
    """That of the kills at random moments: the command calls the same steps."""
    raise SkippedError("the twin of the kills at random moments stands for this one, the command calls the same steps")


def _command(bench: Bench, store: Path) -> subprocess.Popen[bytes]:
    encoder = json.loads((bench.base / "stored/encoder.json").read_text())["id"]
    command = [str(Path(sys.executable).parent / "lookalike"), "build", bench.source, "--store", str(store)]
    command += ["--encoder", encoder, "--workers", "1", "--shard-photos", "4"]
    home = bench.work / "prefect" / uuid.uuid4().hex[:8]
    home.mkdir(parents=True)
    env = os.environ | {"PREFECT_HOME": str(home)}
    log = (bench.work / "command.log").open("ab")
    return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True, cwd=bench.work)


def _last_duration(bench: Bench) -> float:
    noted = bench.work / "command-seconds"
    return min(float(noted.read_text()), 120.0) if noted.exists() else _LASTS_S


def _remember_duration(bench: Bench, seconds: float) -> None:
    (bench.work / "command-seconds").write_text(f"{seconds:.1f}")


FAULT = Fault(
    name="kill_command",
    title="kill -9 of the real `lookalike build`",
    how="SIGKILL to the process group of the command, Prefect's server and children with it, at a random moment; then a rerun. The"
    " short form is one trial of five kills, one after another, and a rerun",
    guard="see kill -9 at random moments",
    keys=_keys,
    run=_run,
    twin=_twin,
)
