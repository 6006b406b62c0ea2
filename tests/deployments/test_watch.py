"""Photos dropped into a folder become a version: server, worker, automation and watcher as they are deployed, on loopback."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.flow


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store that has an encoder in use and no version."""
    from store.encoders import promote_encoder
    from store.layout import open_store
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    uri = str(tmp_path / "store")
    encoder = new_encoder(uri, settings=NetworkSettings(width=0.25, dimension=32))
    promote_encoder(open_store(uri), encoder)
    return uri


@contextlib.contextmanager
def running(*command: str, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is asked to end with the block; what it wrote is told when the block fails."""
    with log.open("wb") as out, subprocess.Popen(command, env=env, cwd=PROJECT, stdout=out, stderr=out) as process:
        try:
            yield process
        except BaseException as error:
            error.add_note(f"{' '.join(command)}:\n{log.read_text()[-6000:]}")
            raise
        finally:
            process.send_signal(signal.SIGTERM)


def wait_for(happens: Callable[[], Any], *, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := happens()):
        if time.monotonic() > deadline:
            raise AssertionError("what the test waits for did not happen")
        time.sleep(0.2)
    return found


def builds() -> list[Any]:
    """All runs of build-index on the server."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["build-index"])))


def test_twenty_photos_dropped_into_a_folder_are_published_once_without_a_hand(
    prefect_api: str, drawn_people: Path, inbox: Path, store: str, tmp_path: Path
) -> None:
    from flows.watch_source import watch_source
    from store.layout import open_store
    from store.versions import current_number, read_version
    from tasks.steps.query_photo import query_photo

    env = os.environ | {"PREFECT_API_URL": prefect_api, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    prefect = str(BIN / "prefect")
    before = len(builds())
    watch = (str(BIN / "lookalike"), "watch", str(inbox), "--store", store, "--settle", "1")
    with running(prefect, "worker", "start", "--pool", "cpu", "--type", "process", env=env, log=tmp_path / "worker"):
        deploy = (
            prefect,
            "--no-prompt",
            "deploy",
            "--name",
            "build-index/local",
            "--prefect-file",
            "deployments/prefect.yaml",
        )
        subprocess.run(deploy, env=env, cwd=PROJECT, check=True, capture_output=True, timeout=300)
        with running(*watch, env=env, log=tmp_path / "watcher"):
            wait_for(lambda: "watching" in (tmp_path / "watcher").read_text(), seconds=120)
            for photo in sorted(drawn_people.rglob("*.jpg"))[:20]:
                shutil.copy(photo, inbox / f"{photo.parent.name}-{photo.name}")
                time.sleep(0.05)
            wait_for(lambda: current_number(open_store(store)), seconds=300)
            time.sleep(2)
    version = read_version(open_store(store))
    assert version.number == 1
    assert version.manifest.photos == 20
    (run,) = builds()[before:]
    assert run.parameters["source"] == str(inbox)
    assert run.parameters["full"] is False

    picture = sorted(inbox.iterdir())[7]
    assert query_photo(str(picture), store=store, k=1, version=None).faces[0].matches[0].uri == str(picture)

    (told,) = watch_source(store=store, settle_s=0)
    assert (told["photos"], told["added"], told["changed"], told["announced"]) == (20, 0, 0, False)
    assert len(builds()) == before + 1
