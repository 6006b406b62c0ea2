"""A build on a real Dask scheduler and three worker processes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@contextlib.contextmanager
def cluster(workers: int, *, server: str, folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The scheduler's host and port, and the worker processes, each of one thread and without a nanny that would replace it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    env = os.environ | {"PREFECT_API_URL": server}
    host, port = address.split(":")
    commands = [["scheduler", "--host", host, "--port", port, "--no-dashboard", "--no-jupyter"]]
    commands += [
        [
            "worker",
            f"tcp://{address}",
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--local-directory",
            str(folder),
        ]
    ] * workers
    with contextlib.ExitStack() as stack:
        processes = []
        for n, command in enumerate(commands):
            log = stack.enter_context((folder / f"dask{n}.txt").open("wb"))
            process = subprocess.Popen([str(BIN / "dask"), *command], env=env, cwd=PROJECT, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            processes.append(process)
        yield address, processes[1:]


def wait_for(happens: Callable[[], Any], *, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := happens()):
        if time.monotonic() > deadline:
            raise AssertionError("what the test waits for did not happen")
        time.sleep(0.02)
    return found


@pytest.mark.parametrize(
    "wrong", ["127.0.0.1:8786", "tcp://127.0.0.1:8786", "dask://127.0.0.1", "dask://", "dask:8786"]
)
def test_a_cluster_is_named_by_its_scheme_host_and_port(wrong: str) -> None:
    from store.errors import LookalikeError
    from tasks.cluster import scheduler_of

    assert scheduler_of("dask://127.0.0.1:8786") == "tcp://127.0.0.1:8786"
    assert scheduler_of("dask+tls://scheduler:8786") == "tls://scheduler:8786"
    with pytest.raises(LookalikeError, match="wanted dask://host:port"):
        scheduler_of(wrong)


def test_the_children_of_a_cluster_s_worker_keep_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.cluster import ChildrenOfWorker
    from tasks.steps.children import run_in_child

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")  # as Dask's nanny sets it
    plugin = ChildrenOfWorker("cpu")
    plugin.setup(SimpleNamespace(state=SimpleNamespace(nthreads=1)))  # type: ignore[arg-type]
    try:
        assert run_in_child(os.getenv, "MALLOC_TRIM_THRESHOLD_") is None
    finally:
        plugin.teardown(SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.flow
def test_a_worker_killed_in_the_middle_costs_nothing(prefect_server: str, drawn_people: Path, tmp_path: Path) -> None:
    from store.layout import open_store
    from store.versions import read_version
    from tasks.steps.train_encoder import NetworkSettings, new_encoder
    from tasks.steps.verify_store import verify_store

    env = os.environ | {"PREFECT_API_URL": prefect_server}
    stores = [str(tmp_path / name) for name in ("cluster", "here")]
    for store in stores:
        encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))
    command = [
        str(BIN / "lookalike"),
        "build",
        str(drawn_people),
        "--encoder",
        encoder,
        "--shard-photos",
        "1",
        "--json",
    ]

    def shards() -> list[Path]:
        return sorted(Path(stores[0], "photos").rglob("*.parquet"))

    with cluster(3, server=prefect_server, folder=tmp_path) as (address, workers):
        options = ["--store", stores[0], "--cluster", f"dask://{address}"]
        with (
            at_work_on(address, workers=3) as at_work,
            subprocess.Popen([*command, *options], env=env, stdout=subprocess.PIPE, text=True) as build,
        ):
            wait_for(lambda: len(shards()) >= 4 or build.poll() is not None, seconds=300)
            killed = workers[1]
            while True:
                killed.send_signal(signal.SIGSTOP)
                if killed.pid in at_work():  # and stays so until it is killed
                    break
                killed.send_signal(signal.SIGCONT)
                time.sleep(0.1)
            before = {path: path.stat().st_ino for path in shards()}
            killed.send_signal(signal.SIGKILL)
            assert build.poll() is None
            assert len(before) < 24
            out, _ = build.communicate(timeout=300)
        assert build.returncode == 0, (tmp_path / "dask0.txt").read_text()
        assert [worker.poll() for worker in workers] == [None, -signal.SIGKILL, None]
    result = json.loads(out.splitlines()[-1])
    assert result["published"]
    assert result["seen"] == sum(result["photos"].values()) == 24
    assert {path: path.stat().st_ino for path in before} == before  # what was finished was not done again
    assert len(shards()) == result["shards"]["computed"]
    assert verify_store(stores[0]).problems == []

    subprocess.run([*command, "--store", stores[1]], env=env, check=True, capture_output=True)
    alone = read_version(open_store(stores[1])).manifest
    assert alone.content_sha256 == result["content_sha256"]


@contextlib.contextmanager
def at_work_on(address: str, *, workers: int) -> Iterator[Callable[[], set[int]]]:
    """Tells the processes of the workers that have a task now, once all of them have come."""
    from distributed import Client

    with Client(f"tcp://{address}", set_as_default=False, timeout=60) as client:
        client.wait_for_workers(workers, timeout=120)
        pids = client.run(os.getpid)
        yield lambda: {pids[worker] for worker, tasks in client.processing().items() if tasks}


@pytest.mark.long
@pytest.mark.flow
def test_workers_of_a_cluster_code_the_faces_of_a_large_index(
    prefect_api: str, drawn_people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.build_index import build_index
    from store.layout import open_store
    from store.versions import read_version
    from tasks.steps.train_encoder import NetworkSettings, new_encoder
    from tasks.steps.verify_store import verify_store

    monkeypatch.setattr("store.index_choice.FEWEST_FOR_CODES", 16)
    monkeypatch.setattr("tasks.steps.choose_index._TRIALS", 1)
    monkeypatch.setattr("tasks.steps.stored_faces._HELD_BYTES", 100)
    monkeypatch.setattr("tasks.steps.stored_faces.BLOCK", 5)
    monkeypatch.setattr("tasks.steps.plan_coding._FACES", 5)
    stores = [str(tmp_path / name) for name in ("cluster", "here")]
    for store in stores:
        encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))
    options: dict[str, Any] = {"encoder": encoder, "shard_photos": 3, "memory": "2.7K"}
    with cluster(2, server=prefect_api, folder=tmp_path) as (address, _), monkeypatch.context() as patch:
        patch.setattr("tasks.computing.children", None)  # nobody computes anything here
        built = build_index(source=str(drawn_people), store=stores[0], cluster=f"dask://{address}", **options)
    assert built["published"]
    assert built["index"]["key"] != "Flat"
    storage = open_store(stores[0])
    assert any(name.startswith("code-faces-") for name in storage.names("runs/results"))
    assert verify_store(stores[0]).problems == []
    build_index(source=str(drawn_people), store=stores[1], workers=2, **options)
    there, here = (read_version(open_store(store)).manifest.files for store in stores)
    assert there["index.faiss"] == here["index.faiss"]
    assert there["truth.parquet"].bytes > 0
