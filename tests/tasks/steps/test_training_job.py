import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.architectures import build_network
from models.pairs import split_people
from models.training import EpochRecord, RunOptions, TrainingResult, TrainingSettings
from store.errors import ArtifactError, LookalikeError
from store.layout import open_store
from store.storage import Storage
from tasks.steps.train_processes import Processes, run_job_in_processes
from tasks.steps.training_job import (
    TrainingJob,
    job_folder,
    read_job,
    read_result,
    run_job,
    write_job,
    write_result,
)
from tasks.steps.training_network import NetworkSettings

PROJECT = Path(__file__).resolve().parents[3]
LABELS = [f"p{n // 3:02d}" for n in range(36)]
SETTINGS = TrainingSettings(epochs=2, batches_per_epoch=2, batch_people=4, batch_photos=2)


def make_job(**changes: Any) -> TrainingJob:
    card = NetworkSettings(width=0.125, dimension=16).card()
    network = build_network(str(card.architecture), card.dimension)
    network.initialise(0)
    crops = np.random.default_rng(0).integers(0, 256, (len(LABELS), 80, 80, 3), np.uint8)
    split = split_people(LABELS, validation_share=0.25, held_out_share=0.25, seed=0)
    job = TrainingJob(crops, LABELS, card, dict(network.state_dict()), SETTINGS, split)
    return replace(job, **changes)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_store(str(tmp_path / "store"), create=True)


def equal(first: TrainingResult, second: TrainingResult) -> bool:
    names = first.state_dict.keys() == second.state_dict.keys()
    return names and all(torch.equal(first.state_dict[name], second.state_dict[name]) for name in first.state_dict)


def test_a_job_comes_back_as_it_was_and_its_name_hangs_on_everything(storage: Storage) -> None:
    job = make_job()
    write_job(storage, job)
    again = read_job(storage, job.identity)
    assert again.identity == job.identity
    assert (again.settings, again.split, again.labels) == (job.settings, job.split, job.labels)
    np.testing.assert_array_equal(again.crops_NHWC, job.crops_NHWC)
    other = job.crops_NHWC.copy()
    other[3, 4, 5, 0] ^= 1
    changed = [
        make_job(crops_NHWC=other),
        make_job(settings=replace(SETTINGS, seed=1)),
        make_job(labels=[*LABELS[:-1], "p10"]),
        make_job(first_weights={**job.first_weights, "last_bn.bias": job.first_weights["last_bn.bias"] + 1}),
    ]
    assert len({job.identity, *(one.identity for one in changed)}) == 5


@pytest.mark.parametrize("name", ["job.json", "job.safetensors"])
def test_a_job_that_changed_is_refused(storage: Storage, name: str) -> None:
    job = make_job()
    write_job(storage, job)
    path = f"{job_folder(job.identity)}/{name}"
    storage.write(path, storage.read(path).replace(b"a", b"b", 1))
    with pytest.raises(ArtifactError, match=rf"{name} (is not the job|has changed)"):
        read_job(storage, job.identity)


def test_a_result_comes_back_as_it_was(storage: Storage) -> None:
    job = make_job()
    result = run_job(job, storage, RunOptions())
    write_result(storage, job.identity, result)
    again = read_result(storage, job.identity)
    assert equal(again, result)
    assert replace(again, state_dict={}) == replace(result, state_dict={})


STRAIGHT = """
import sys, torch
torch.set_num_threads(1)
from store.layout import open_store
from models.training import RunOptions
from tasks.steps.training_job import read_job, run_job, write_result
storage = open_store(sys.argv[1])
write_result(storage, sys.argv[2], run_job(read_job(storage, sys.argv[2]), storage, RunOptions()))
"""


def test_a_training_killed_in_the_middle_goes_on_and_ends_bit_for_bit_as_if_nothing_had_happened(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(settings=replace(SETTINGS, epochs=4, batches_per_epoch=3))
    elsewhere = open_store(str(tmp_path / "straight"), create=True)
    straight = run_job(job, elsewhere, RunOptions())

    write_job(storage, job)
    command = [sys.executable, "-c", STRAIGHT, storage.uri, job.identity]
    checkpoint = Path(storage.uri) / job_folder(job.identity) / "checkpoint.json"
    with subprocess.Popen(command, cwd=PROJECT) as training:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline and training.poll() is None:
            time.sleep(0.005)
        training.send_signal(signal.SIGKILL)
    assert training.returncode == -signal.SIGKILL, "it ended before it could be killed"

    records: list[EpochRecord] = []
    resumed = run_job(job, storage, RunOptions(on_epoch=records.append))
    assert 1 <= len(records) < 4  # the first epochs were not run again
    assert equal(resumed, straight)
    assert resumed.best_epoch == straight.best_epoch
    assert [(r.loss, r.validation) for r in resumed.epochs] == [(r.loss, r.validation) for r in straight.epochs]
    assert (resumed.metrics_before, resumed.metrics_after) == (straight.metrics_before, straight.metrics_after)


def test_two_processes_train_what_one_trains_with_batches_cut_in_two(storage: Storage, tmp_path: Path) -> None:
    elsewhere = open_store(str(tmp_path / "alone"), create=True)
    alone = run_job(make_job(settings=replace(SETTINGS, micro_batches=2)), elsewhere, RunOptions())
    records: list[EpochRecord] = []
    together = run_job_in_processes(
        make_job(), storage, Processes(per_machine=2), device="cpu", on_epoch=records.append
    )
    assert tuple(records) == together.epochs
    assert together.best_epoch == alone.best_epoch
    for mine, theirs in zip(together.epochs, alone.epochs, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-3)
        assert mine.reconstruction_loss == pytest.approx(theirs.reconstruction_loss, rel=1e-3)
    for name, tensor in alone.state_dict.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(together.state_dict[name], tensor, rtol=0.05, atol=5e-3)


def test_two_launchers_that_meet_train_together(storage: Storage) -> None:
    """Two machines, as far as torchrun can tell: each launcher starts one member, and they meet on loopback."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meet_at = f"127.0.0.1:{probe.getsockname()[1]}"
    job = make_job(settings=replace(SETTINGS, epochs=1, batches_per_epoch=1))
    others: list[subprocess.Popen[bytes]] = []

    def start_the_other(sentence: str) -> None:
        found = re.fullmatch(r"on each of the other 1 machines, in the project's folder: python (.*)", sentence)
        assert found is not None
        others.append(subprocess.Popen([sys.executable, *found[1].split()], cwd=PROJECT, stdout=subprocess.DEVNULL))

    processes = Processes(per_machine=1, machines=2, meet_at=meet_at)
    result = run_job_in_processes(job, storage, processes, device="cpu", say=start_the_other)
    assert len(result.epochs) == 1
    assert [other.wait(timeout=60) for other in others] == [0]


def test_a_team_that_fails_says_why(storage: Storage) -> None:
    job = make_job(crops_NHWC=make_job().crops_NHWC[:-1])
    with pytest.raises(LookalikeError, match=r"in several processes failed .*ValueError: crops: got uint8 \(35, 80"):
        run_job_in_processes(job, storage, Processes(per_machine=2), device="cpu")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"per_machine": 0}, "per_machine: got 0, wanted at least 1"),
        ({"machines": 2}, "2 machines need a place to meet: give host:port"),
    ],
)
def test_processes_out_of_range_are_named(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Processes(**wrong)


def test_a_member_that_torchrun_did_not_start_says_so(storage: Storage) -> None:
    command = [sys.executable, "-m", "tasks.steps.train_member", "--store", storage.uri, "--job", "none"]
    env = {name: value for name, value in os.environ.items() if name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "RANK is not set: start this by torchrun" in done.stderr
