"""Train in several processes, on this machine or on several, by torch's own launcher."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.training import EpochRecord, TrainingResult
from store.errors import LookalikeError
from store.storage import Storage
from tasks.steps.training_job import TrainingJob, read_result, write_job

__all__ = ["Processes", "run_job_in_processes"]

_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Processes:
    """How many processes train, and where.

    Args:
        per_machine: processes on each machine, one a GPU.
        machines: how many machines there are.
        meet_at: host:port of this machine, at which the others find it; needed for more than one.

    Raises:
        ValueError: a number below 1, or several machines with no place to meet.
    """

    per_machine: int = 1
    machines: int = 1
    meet_at: str | None = None

    def __post_init__(self) -> None:
        for name in ("per_machine", "machines"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted at least 1")
        if self.machines > 1 and not self.meet_at:
            raise ValueError(f"{self.machines} machines need a place to meet: give host:port of this one")

    @property
    def several(self) -> bool:
        """Whether there is more than one process."""
        return self.per_machine * self.machines > 1

    def command(self, *, store: str, job: str, device: str) -> list[str]:
        """What starts this machine's members, and, typed there, another machine's."""
        where = ["--standalone"]
        if self.machines > 1:
            where = ["--nnodes", str(self.machines), "--rdzv-backend", "c10d", "--rdzv-endpoint", str(self.meet_at)]
            where += ["--rdzv-id", job]
        launched = ["-m", "tasks.steps.train_member", "--store", store, "--job", job, "--device", device]
        return ["-m", "torch.distributed.run", *where, "--nproc-per-node", str(self.per_machine), *launched]


def run_job_in_processes(
    job: TrainingJob,
    storage: Storage,
    processes: Processes,
    *,
    device: str,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> TrainingResult:
    """Train a job in several processes and wait for its result.

    Args:
        job: what to train.
        storage: reached by every process.
        processes: how many, and where.
        device: "cpu" or "cuda".
        on_epoch: is told of each epoch as it ends.
        say: is told what to type on the other machines.

    Raises:
        LookalikeError: a member failed; the message is its own.
    """
    write_job(storage, job)
    command = processes.command(store=storage.uri, job=job.identity, device=device)
    if processes.machines > 1:
        say(
            f"on each of the other {processes.machines - 1} machines, in the project's folder: python {' '.join(command)}"
        )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))}
    env.setdefault("OMP_NUM_THREADS", str(job.settings.threads))
    failed = "its members said nothing"
    call = [sys.executable, *command]
    with subprocess.Popen(call, env=env, stdout=subprocess.PIPE, text=True) as launcher:  # noqa: S603  our interpreter
        try:
            for line in launcher.stdout or ():
                told = _told(line)
                failed = str(told.get("error", failed))
                if "epoch" in told and on_epoch is not None:
                    on_epoch(EpochRecord.from_json(told["epoch"]))
        except BaseException:
            launcher.terminate()
            raise
    if launcher.returncode:
        raise LookalikeError(f"training in several processes failed (exit code {launcher.returncode}): {failed}")
    return read_result(storage, job.identity)


def _told(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
