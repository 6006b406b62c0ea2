"""What compose.yaml runs, without containers: PostgreSQL, a server with auth and CSRF, three workers, an S3 endpoint.

Environments and commands are read from that file; hosts and secrets in it stand for those of the test.
"""

import base64
import contextlib
import json
import os
import re
import signal
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.deployments.processes import PROJECT, postgresql, run, run_process_of, running, wait_for

pytestmark = [pytest.mark.flow, pytest.mark.long, pytest.mark.timeout(1500)]

SERVICES = yaml.safe_load((PROJECT / "deployments" / "compose.yaml").read_text())["services"]
AUTH = "operator:not-a-secret"
PASSWORD = "not-a-secret-either"
STORE = "s3://lookalike/store"


def environment(service, instead):
    """A service's environment as the file says it, with what the names in it stand for here."""
    said = {}
    for name, value in SERVICES[service]["environment"].items():
        text = re.sub(r"\$\{(\w+)[^}]*\}", lambda match: instead[match.group(1)], str(value))
        for host in ("database", "server:4200", "s3:8333"):
            text = re.sub(rf"(?<=[/@]){re.escape(host)}(?=[/:]|$)", instead[host], text)
        said[name] = text
    return said


def ask(url, *, auth=None, body=None, headers=None):
    """The status and the body of an answer; 0 where nobody answers."""
    sent = dict(headers or {})
    if auth:
        sent["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()
    if body is not None:
        sent["Content-Type"] = "application/json"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=sent, data=body), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


@dataclass
class Site:
    """All of it, running."""

    api: str
    env: dict[str, str]
    encoder: str
    workers: dict[str, int]
    folder: Path

    def run(self, deployment, **parameters):
        """Run a deployment to its end by the command an operator types."""
        try:
            sent = json.dumps(parameters)
            return run("prefect", "deployment", "run", deployment, "--params", sent, "--watch", env=self.env)
        except AssertionError as error:
            for name in self.workers:
                error.add_note(self.log_of(name)[-3000:])
            raise

    def log_of(self, worker):
        return (self.folder / f"worker-{worker}.txt").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory, any_port, s3_endpoint, drawn_people):
    from store.encoders import promote_encoder
    from store.layout import open_store
    from store.s3_requests import ask as ask_s3
    from store.storage import Storage
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    folder = tmp_path_factory.mktemp("site")
    ask_s3("create_bucket", "s3://lookalike", Bucket="lookalike")
    bucket = Storage("s3://lookalike")
    for picture in sorted(drawn_people.rglob("*.jpg")):
        bucket.upload(f"photos/{picture.parent.name}/{picture.name}", picture)
    encoder = new_encoder(STORE, settings=NetworkSettings(width=0.25, dimension=32))
    promote_encoder(open_store(STORE), encoder)
    database, port = any_port(), any_port()
    instead = {
        "PREFECT_AUTH": AUTH,
        "POSTGRES_PASSWORD": PASSWORD,
        "S3_ACCESS_KEY": os.environ["AWS_ACCESS_KEY_ID"],
        "S3_SECRET_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
        "LOOKALIKE_ALERT_URL": "",
        "database": f"127.0.0.1:{database}",
        "server:4200": f"127.0.0.1:{port}",
        "s3:8333": s3_endpoint.removeprefix("http://"),
    }
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_API", "AWS_"))}
    server = plain | environment("server", instead) | {
        "PREFECT_HOME": str(folder / "server"),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "ui"),
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    }  # fmt: skip
    client = plain | environment("worker", instead)
    client |= {"PREFECT_HOME": str(folder / "client"), "PREFECT_WORKER_QUERY_SECONDS": "2"}
    api = client["PREFECT_API_URL"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(postgresql(database, user="prefect", password=PASSWORD, database="prefect"))
        stack.enter_context(running(*SERVICES["server"]["command"], env=server, log=folder / "server.txt"))
        wait_for(lambda: ask(f"{api}/health")[0] == 200, seconds=180)
        run(*SERVICES["deploy"]["command"], env=client)
        workers = {name: any_port() for name in ("one", "two", "gpu")}
        for name, health in workers.items():
            well = {"PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_WORKER_WEBSERVER_PORT": str(health)}
            command = [*SERVICES["worker-gpu" if name == "gpu" else "worker"]["command"], "--name", name]
            stack.enter_context(running(*command, env=client | well, log=folder / f"worker-{name}.txt"))
        yield Site(api=api, env=client, encoder=encoder, workers=workers, folder=folder)


@pytest.fixture
def client(site):
    from prefect import settings
    from prefect.client.orchestration import get_client

    changes = {settings.PREFECT_API_URL: site.api, settings.PREFECT_API_AUTH_STRING: AUTH}
    with settings.temporary_settings(changes), get_client(sync_client=True) as client:
        yield client


def logged(client, run_id, words):
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    return [log.message for log in client.read_logs(wanted, limit=200) if words in log.message]


def ended(client, run_id, *, seconds=600):
    from prefect.client.schemas.objects import TERMINAL_STATES

    wait_for(lambda: client.read_flow_run(run_id).state_type in TERMINAL_STATES, seconds=seconds)
    return client.read_flow_run(run_id)


def test_only_who_knows_the_password_is_let_in_and_no_page_of_another_site_can_act(site):
    count = f"{site.api}/flows/count"
    assert ask(f"{site.api}/health")[0] == 200
    assert ask(f"{site.api}/version")[0] == 401
    assert ask(f"{site.api}/version", auth="operator:wrong")[0] == 401
    assert ask(f"{site.api}/version", auth=AUTH)[0] == 200
    assert ask(count, body=b"{}")[0] == 403  # whether the page may act is looked at first, then who asks
    assert ask(count, body=b"{}", auth=AUTH)[0] == 403
    assert ask(f"{site.api}/csrf-token?client=here")[0] == 401
    token = json.loads(ask(f"{site.api}/csrf-token?client=here", auth=AUTH)[1])["token"]
    shown = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "here"}
    assert ask(count, body=b"{}", headers=shown)[0] == 401
    assert ask(count, body=b"{}", headers=shown, auth=AUTH)[0] == 200
    status, text = ask(f"{site.api}/metrics", auth=AUTH)
    assert status == 200
    assert "# TYPE" in text


def test_each_worker_says_that_it_is_well(site):
    for port in site.workers.values():
        wait_for(lambda port=port: ask(f"http://127.0.0.1:{port}/health")[0] == 200)


def test_photos_in_the_bucket_are_announced_by_its_schedule_and_built_by_the_trigger(site, client):
    """A run that the schedule planned is brought forward; what it announces starts build-index/s3."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.states import Scheduled

    from store.layout import open_store
    from store.versions import current_number, read_version

    watch = client.read_deployment_by_name("watch-source/s3-nightly")
    assert [one.active for one in watch.schedules] == [True]
    planned = wait_for(lambda: [one for one in client.read_flow_runs(limit=200) if one.deployment_id == watch.id])
    client.set_flow_run_state(planned[0].id, Scheduled(), force=True)
    assert ended(client, planned[0].id).state.name == "Completed"

    of_build = FlowFilter(name=FlowFilterName(any_=["build-index"]))
    (build,) = wait_for(lambda: client.read_flow_runs(flow_filter=of_build))
    assert build.deployment_id == client.read_deployment_by_name("build-index/s3").id
    assert build.parameters == {"source": "s3://lookalike/photos", "store": STORE, "full": True}
    assert ended(client, build.id).state.name == "Completed"
    store = open_store(STORE)
    assert read_version(store, current_number(store)).manifest.photos == 24


def test_two_builds_of_one_store_started_together_run_on_two_workers_one_after_the_other(site, client):
    from store.layout import open_store
    from store.versions import published_numbers
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    store = "s3://lookalike/another"
    encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))
    parameters = {"store": store, "encoder": encoder, "shard_photos": 6}
    deployment = client.read_deployment_by_name("build-index/s3")
    runs = [client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id for _ in range(2)]
    names = sorted((one := ended(client, run)).state.name + ": " + one.name for run in runs)
    assert names == [
        "Completed: build s3://lookalike/photos +24 photos",
        "Completed: build s3://lookalike/photos, nothing new",
    ]
    assert published_numbers(open_store(store)) == [1]
    assert all(sum(str(run) in site.log_of(name) for run in runs) == 1 for name in ("one", "two"))
    assert wait_for(lambda: [line for run in runs for line in logged(client, run, "waiting for store-")])


def test_asking_evaluating_forgetting_looking_and_training_run_on_the_pool_cpu(site, drawn_people, tmp_path):
    pictures = [str(path.relative_to(drawn_people)) for path in sorted(drawn_people.rglob("*.jpg"))]
    site.run("query/local", image=str(drawn_people / pictures[0]), store=STORE, k=2)
    pairs = tmp_path / "pairs.csv"
    rows = [(0, 1, 1), (3, 4, 1), (0, 3, 0), (1, 6, 0)]
    lines = [f"{pictures[a]},{pictures[b]},{same}" for a, b, same in rows]
    pairs.write_text("\n".join(["first,second,same", *lines]) + "\n")
    site.run("evaluate/local", images=str(drawn_people), pairs=str(pairs), store=STORE, encoder=site.encoder)
    site.run("forget/local", store=STORE)
    for name in ("local", "s3"):
        site.run(f"watch-source/{name}", store=STORE)
    quick = {"epochs": 1, "batches_per_epoch": 1, "batch_people": 2, "batch_photos": 2}
    small = {"width": 0.25, "dimension": 32}
    site.run("train-encoder/local", source="s3://lookalike/photos", store=STORE, network=small, settings=quick)
    assert "train" not in site.log_of("gpu")


def test_training_on_a_gpu_waits_for_the_limit_and_gives_its_slot_back_when_it_fails(site, client):
    """This machine may have no GPU: then the run says so, after its turn came."""
    from prefect.concurrency.sync import concurrency

    deployment = client.read_deployment_by_name("train-encoder/gpu")
    assert deployment.parameters["device"] == "cuda"
    quick = {"epochs": 1, "batches_per_epoch": 1, "batch_people": 2, "batch_photos": 2}
    asked = {"source": "s3://lookalike/photos", "store": STORE, "settings": quick}
    asked["network"] = {"width": 0.25, "dimension": 32}
    with concurrency("gpu", strict=True):
        run_id = client.create_flow_run_from_deployment(deployment.id, parameters=asked).id
        wait_for(lambda: logged(client, run_id, "waiting for gpu: all 1 slots are taken"), seconds=180)
        assert client.read_flow_run(run_id).state.is_running()
    done = ended(client, run_id)
    assert str(run_id) in site.log_of("gpu")
    assert done.state.is_completed() or "GPU" in done.state.message
    assert wait_for(lambda: client.read_global_concurrency_limit_by_name("gpu").active_slots == 0)


def test_a_build_whose_process_is_killed_is_started_once_more_gets_its_slot_back_and_completes(
    site, client, drawn_people, tmp_path
):
    """The slot of the dead process is free when its lease has run out, two minutes after; until then the second start waits."""
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    store = tmp_path / "store"
    encoder = new_encoder(str(store), settings=NetworkSettings(width=0.25, dimension=32))
    asked = {"source": str(drawn_people), "store": str(store), "encoder": encoder, "shard_photos": 1, "workers": 1}
    deployment = client.read_deployment_by_name("build-index/local")
    run_id = client.create_flow_run_from_deployment(deployment.id, parameters=asked).id
    wait_for(lambda: list(store.glob("photos/*/*.parquet")), seconds=300)
    os.kill(run_process_of(run_id), signal.SIGKILL)
    wait_for(lambda: logged(client, run_id, "waiting for store-"), seconds=180)
    wait_for(lambda: client.read_flow_run(run_id).state.name == "Completed", seconds=400)
    assert client.read_flow_run(run_id).run_count == 2
    assert (store / "versions" / "CURRENT").read_text() == "1"
