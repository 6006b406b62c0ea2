import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

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
}


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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

    changes = {
        settings.PREFECT_API_URL: prefect_server,
        settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        settings.PREFECT_LOGGING_TO_API_ENABLED: False,  # sent by a thread that outlives the server
    }
    with settings.temporary_settings(changes):
        yield prefect_server


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket, `s3://faces`, of a real S3 endpoint on loopback, found through the environment."""
    import boto3
    import fsspec
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",  # moto takes anything
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="faces")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        yield "s3://faces"
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()
