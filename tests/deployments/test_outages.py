"""The server goes away in the middle of a build, for a while or for good; machines die without a word; runs are cancelled."""

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.deployments.processes import PROJECT, program, run, running, wait_for

pytestmark = [pytest.mark.flow, pytest.mark.long, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Enough photos for a build of minutes."""
    from tasks.steps.draw_people import draw_people

    folder = tmp_path_factory.mktemp("crowd") / "people"
    draw_people(folder, people=range(40), views=range(4), seed=5, workers=2)
    return folder


class Server:
    """A Prefect server that can be killed and started again where it was, with deployments and automations of the files."""

    def __init__(self, folder, port):
        self.folder, self.api = folder, f"http://127.0.0.1:{port}/api"
        lease_storage = "prefect.server.concurrency.lease_storage.filesystem"
        self._env = os.environ | {"PREFECT_HOME": str(folder / "home"), "PREFECT_SERVER_API_PORT": str(port)}
        self._env |= {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": lease_storage}
        self.client_env = os.environ | {"PREFECT_HOME": str(folder / "client"), "PREFECT_API_URL": self.api}
        self.client_env |= {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PREFECT_WORKER_QUERY_SECONDS": "2"}
        self._stack = contextlib.ExitStack()

    def start(self):
        command = ("prefect", "server", "start")
        self._process = self._stack.enter_context(running(*command, env=self._env, log=self.folder / "server.txt"))
        wait_for(self._healthy, seconds=180)

    def kill(self):
        self._process.kill()
        self._process.wait()

    def close(self):
        self._stack.close()

    def _healthy(self):
        import urllib.request

        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.api}/health", timeout=2):
            return True
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory, any_port):
    from prefect.events.schemas.automations import AutomationCore

    from app.deploying import AUTOMATIONS, read_automation

    server = Server(tmp_path_factory.mktemp("outages"), any_port())
    with contextlib.closing(server):
        server.start()
        run("lookalike", "deploy", "--pause-schedules", env=server.client_env)
        impatient = read_automation(AUTOMATIONS / "silent-run.yaml", block=None)
        impatient["trigger"] = impatient["trigger"] | {"within": 90}
        impatient["name"] = "silent for 90 seconds"
        with client_of(server) as client:
            client.create_automation(AutomationCore.model_validate(impatient))
        yield server


@contextlib.contextmanager
def client_of(server):
    from prefect import settings
    from prefect.client.orchestration import get_client

    with settings.temporary_settings({settings.PREFECT_API_URL: server.api}), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def store(tmp_path):
    from store.encoders import promote_encoder
    from store.layout import open_store
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    store = tmp_path / "store"
    encoder = new_encoder(str(store), settings=NetworkSettings(width=0.25, dimension=32))
    promote_encoder(open_store(str(store)), encoder)
    return store


def committed(store):
    return {path.name for path in (store / "photos").rglob("*.parquet")}


def embedded(store):
    return {path.name for path in (store / "embeddings").rglob("*.parquet")}


def build(crowd, store, *options):
    return ("lookalike", "build", str(crowd), "--store", str(store), "--shard-photos", "2", "--workers", "1", *options)


@contextlib.contextmanager
def building(server, crowd, store, log):
    """A build under way that has finished some shards."""
    with running(*build(crowd, store, "--json"), env=server.client_env, log=log) as process:
        wait_for(lambda: len(committed(store)) >= 3 or process.poll() is not None, seconds=120)
        assert process.poll() is None, log.read_text()
        yield process


def rerun(server, crowd, store):
    return json.loads(run(*build(crowd, store, "--json"), env=server.client_env, seconds=600).splitlines()[-1])


def content_of(store):
    from store.layout import open_store
    from store.versions import read_version

    return read_version(open_store(str(store)), 1).manifest.content_sha256


@pytest.fixture(scope="module")
def undisturbed(server, crowd, tmp_path_factory):
    """The content hash and the shards of a build that nothing happened to."""
    from store.encoders import promote_encoder
    from store.layout import open_store
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    store = tmp_path_factory.mktemp("undisturbed") / "store"
    encoder = new_encoder(str(store), settings=NetworkSettings(width=0.25, dimension=32))
    promote_encoder(open_store(str(store)), encoder)
    subprocess.run(
        [program("lookalike"), *build(crowd, store)[1:], "--workers", "2"],
        env=server.client_env, cwd=PROJECT, check=True, capture_output=True,
    )  # fmt: skip
    return content_of(store), committed(store)


def runs_of(client, store):
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    of_build = FlowFilter(name=FlowFilterName(any_=["build-index"]))
    found = client.read_flow_runs(flow_filter=of_build, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    return [one for one in found if one.parameters["store"] == str(store)]


def slots_taken(client, store):
    from tasks.policies import store_limit

    return client.read_global_concurrency_limit_by_name(store_limit(str(store))).active_slots


def test_a_build_goes_on_while_the_server_is_away_for_half_a_minute(server, crowd, store, undisturbed, tmp_path):
    with building(server, crowd, store, tmp_path / "log.txt") as process:
        server.kill()
        before = len(committed(store))
        time.sleep(30)
        assert process.poll() is None
        assert len(committed(store)) > before
        server.start()
        assert process.wait(600) == 0
    assert (content_of(store), committed(store)) == undisturbed
    with client_of(server) as client:
        (one,) = runs_of(client, store)
        assert one.state.name == "Completed"
        assert wait_for(lambda: slots_taken(client, store) == 0)


def test_a_build_computes_all_of_its_shards_without_a_server_and_publishes_when_it_is_back(
    server, crowd, store, undisturbed, tmp_path
):
    with building(server, crowd, store, tmp_path / "log.txt") as process:
        server.kill()
        wait_for(lambda: embedded(store) == undisturbed[1], seconds=600)
        assert process.poll() is None
        server.start()
        assert process.wait(600) == 0
    assert (content_of(store), committed(store)) == undisturbed
    with client_of(server) as client:
        assert wait_for(lambda: slots_taken(client, store) == 0, seconds=300)  # given back, or its lease over
        (one,) = runs_of(client, store)
        assert one.state.name == "Completed"


def test_when_all_is_cut_off_at_once_a_rerun_resumes_and_the_silent_run_is_marked_and_holds_no_slot(
    server, crowd, store, undisturbed, tmp_path
):
    with building(server, crowd, store, tmp_path / "log.txt") as process:
        with client_of(server) as client:
            wait_for(lambda: slots_taken(client, store) == 1)
        process.kill()
        server.kill()
    time.sleep(5)  # its children notice and leave, some with a shard that they had all but committed
    finished = len(committed(store))
    server.start()
    with client_of(server) as client:
        (silent,) = runs_of(client, store)
        assert silent.state.name == "Running"
        result = rerun(server, crowd, store)
        assert result["published"]
        assert result["shards"]["finished"] == finished
        assert (content_of(store), committed(store)) == undisturbed
        wait_for(lambda: client.read_flow_run(silent.id).state.name == "Crashed", seconds=300)
        assert client.read_flow_run(silent.id).state.message == "no sign of life for ten minutes"
        assert wait_for(lambda: slots_taken(client, store) == 0)


def test_a_cancelled_build_stops_within_a_shard_leaves_nothing_half_published_and_resumes(
    server, crowd, store, undisturbed, tmp_path
):
    asked = {"source": str(crowd), "store": str(store), "shard_photos": 2, "workers": 1}
    worker = running("prefect", "worker", "start", "--pool", "cpu", env=server.client_env, log=tmp_path / "worker.txt")
    with worker, client_of(server) as client:
        deployment = client.read_deployment_by_name("build-index/local")
        one = client.create_flow_run_from_deployment(deployment.id, parameters=asked)
        wait_for(lambda: len(committed(store)) >= 3, seconds=180)
        run("prefect", "flow-run", "cancel", str(one.id), env=server.client_env)
        wait_for(lambda: client.read_flow_run(one.id).state.name == "Cancelled", seconds=120)
        stopped = committed(store)
        time.sleep(10)
        assert len(committed(store) - stopped) <= 1
        assert committed(store) < undisturbed[1]
        assert not list(Path(store, "versions").glob("*"))
        assert wait_for(lambda: slots_taken(client, store) == 0, seconds=240)

        again = client.create_flow_run_from_deployment(deployment.id, parameters=asked)
        wait_for(lambda: client.read_flow_run(again.id).state.name == "Completed", seconds=600)
    assert (content_of(store), committed(store)) == undisturbed
