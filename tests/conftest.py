import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parent.parent
HOME = tempfile.TemporaryDirectory(prefix="lookalike-tests-", ignore_cleanup_errors=True)

# before anything imports Prefect: nothing of the tests reaches the user's home or a server of theirs
for name in [
    name for name in os.environ if name.startswith(("PREFECT_", "LOOKALIKE_STORE", "LOOKALIKE_CACHE", "AWS_"))
]:
    del os.environ[name]
os.environ |= {
    "PREFECT_HOME": str(Path(HOME.name) / "prefect"),
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "DO_NOT_TRACK": "1",
    "LOOKALIKE_CACHE": str(Path(HOME.name) / "cache"),
    "LOOKALIKE_WEIGHTS_URL": "http://127.0.0.1:9",  # nothing is downloaded from anybody
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long, and no others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = bool(config.getoption("--long"))
    others = [item for item in items if (item.get_closest_marker("long") is not None) is not wanted]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photos and weights, named by LOOKALIKE_TEST_DATA."""
    folder = os.environ.get("LOOKALIKE_TEST_DATA")
    if not folder:
        pytest.skip("LOOKALIKE_TEST_DATA names no folder with real photos")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def drawn_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight drawn people with three pictures each, a folder a person."""
    from tasks.steps.draw_people import draw_people

    folder = tmp_path_factory.mktemp("drawn") / "people"
    draw_people(folder, people=range(8), views=range(1, 4), seed=3, workers=1)
    return folder


@pytest.fixture(scope="session")
def labelled_faces_of() -> Callable[..., tuple[Any, Any, Any, Any]]:
    """Makes a version's tables without photos: faces, photos, ids, int64 (N,), and embeddings, float32 (N, D).

    Every photo shows its person in the middle, and a stranger nearer the edge; `noise` says how unlike a person is to herself.
    """
    import numpy as np
    import pyarrow as pa

    from store.schemas import VERSION_FACES, VERSION_PHOTOS

    def make(photos_of: dict[str, int], *, noise: float = 1.0, dimension: int = 16, seed: int = 0) -> Any:
        rng = np.random.default_rng(seed)
        photos, faces, vectors = [], [], []
        for person, n in photos_of.items():
            her = rng.normal(size=dimension)
            for number in range(n):
                sha256 = hashlib.sha256(f"{person} {number} {seed}".encode()).hexdigest()
                uri = f"/photos/{person}/{number}.jpg"
                photo = {"uri": uri, "size": 9, "photo_sha256": sha256, "shard": "0" * 32, "status": "indexed"}
                photos.append(photo | {"label": person, "width": 100, "height": 100, "num_faces": 2})
                for box, vector in (
                    ((30, 30, 70, 70), her + noise * rng.normal(size=dimension)),
                    ((0, 0, 20, 20), rng.normal(size=dimension)),
                ):
                    identity = int(rng.integers(2**62))
                    shown = {"photo_sha256": sha256, "uri": uri, "uris": [uri], "score": 0.9, "shard": "0" * 32}
                    faces.append(shown | {"face_id": identity, "box": box, "label": person})
                    vectors.append(vector / np.linalg.norm(vector))
        order = np.argsort([face["face_id"] for face in faces])
        tables = (
            pa.Table.from_pylist([{n: row.get(n) for n in schema.names} for row in rows], schema=schema)
            for rows, schema in (([faces[at] for at in order], VERSION_FACES), (photos, VERSION_PHOTOS))
        )
        ids = np.array([faces[at]["face_id"] for at in order], np.int64)
        return *tables, ids, np.array(vectors, np.float32)[order]

    return make


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def any_port() -> Callable[[], int]:
    """Gives a port of the loopback interface that nobody uses."""
    return free_port


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API url of a real Prefect server on loopback, stopped by its own pid."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    log = tmp_path_factory.mktemp("server") / "log.txt"
    env = os.environ | {"PREFECT_SERVER_API_PORT": str(port), "PREFECT_HOME": str(log.parent / "home")}
    command = [str(Path(sys.executable).parent / "prefect"), "server", "start"]
    with log.open("wb") as out, subprocess.Popen(command, env=env, stdout=out, stderr=out, cwd=log.parent) as server:
        try:
            _wait_until_healthy(url, server, log)
            yield url
        finally:
            server.terminate()


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the Prefect server ended with {server.returncode}: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"the Prefect server did not start: {log.read_text()[-2000:]}")


@pytest.fixture
def prefect_api(prefect_server: str) -> Iterator[str]:
    """Flows called in the test run against the server."""
    from prefect import settings
    from prefect.events.worker import EventsWorker

    changes = {
        settings.PREFECT_API_URL: prefect_server,
        settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        settings.PREFECT_LOGGING_TO_API_ENABLED: False,  # sent by a thread that outlives the server
    }
    EventsWorker.drain_all(timeout=5)  # one of another server's would go on trying to reach that one
    with settings.temporary_settings(changes):
        yield prefect_server
        EventsWorker.drain_all(timeout=5)


@contextlib.contextmanager
def reached_through(url: str) -> Iterator[None]:
    """S3 at this address, found through the environment only."""
    from s3fs import S3FileSystem

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": os.environ.get("LOOKALIKE_TEST_S3_ACCESS_KEY", "test"),
            "AWS_SECRET_ACCESS_KEY": os.environ.get("LOOKALIKE_TEST_S3_SECRET_KEY", "test"),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # Prefect's results go through fsspec, which remembers an endpoint
        yield
        S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """An S3 endpoint with a bucket, `faces`: our own on loopback, or the one that LOOKALIKE_TEST_S3_ENDPOINT names."""
    from benchmarks.faults.s3_endpoint import S3Endpoint
    from store.s3_requests import ask

    url = os.environ.get("LOOKALIKE_TEST_S3_ENDPOINT")
    with contextlib.nullcontext() if url else S3Endpoint() as own, reached_through(url or own.url):
        ask("create_bucket", "s3://faces", Bucket="faces")
        yield url or own.url


@pytest.fixture
def s3(s3_endpoint: str, request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own in the bucket."""
    return f"s3://faces/{hashlib.sha256(f'{request.node.nodeid} {uuid.uuid4()}'.encode()).hexdigest()[:12]}"
