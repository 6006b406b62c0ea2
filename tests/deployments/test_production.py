"""What compose.yaml runs, without containers: PostgreSQL, a server with auth and CSRF, two workers, an S3 endpoint."""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.flow, pytest.mark.long, pytest.mark.timeout(1500)]

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
COMPOSE = yaml.safe_load((PROJECT / "deployments" / "compose.yaml").read_text())
AUTH = "operator:not-a-secret"
PASSWORD = "not-a-secret-either"


@contextlib.contextmanager
def postgres(port):
    """A private cluster on loopback, as the service `database` has it; PostgreSQL refuses to run as root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("postgresql is not installed")
    who = {"user": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="lookalike-pg-", dir="/tmp"))
    try:
        if who:
            shutil.chown(folder, user="postgres")
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        initdb = [found[-1], "-D", folder / "data", "-U", "prefect", "--auth=scram-sha-256", f"--pwfile={secret}", "-N"]
        subprocess.run(initdb, check=True, capture_output=True, cwd="/", **who)
        settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
        command = [found[-1].with_name("postgres"), "-D", folder / "data"]
        command += [part for setting in settings for part in ("-c", setting)]
        with (
            (folder / "log.txt").open("wb") as out,
            subprocess.Popen(command, stdout=out, stderr=out, cwd="/", **who) as server,
        ):
            try:
                env = os.environ | {"PGPASSWORD": PASSWORD}
                psql = [
                    "psql",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    str(port),
                    "-U",
                    "prefect",
                    "-c",
                    "create database prefect",
                    "postgres",
                ]
                wait_for(lambda: subprocess.run(psql, env=env, capture_output=True).returncode == 0)
                yield
            finally:
                server.send_signal(signal.SIGINT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment(service, **instead):
    """A service's environment as compose.yaml says it, with what the names in it stand for."""
    said = {}
    for name, value in COMPOSE["services"][service]["environment"].items():
        text = re.sub(r"\$\{(\w+)[^}]*\}", lambda match: instead[match.group(1)], str(value))
        for host in ("database", "server:4200", "s3:8333"):
            text = re.sub(rf"(?<=[/@]){re.escape(host)}(?=[/:]|$)", instead[host], text)
        said[name] = text
    return said


def wait_for(condition, *, seconds=180):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.5)
    return found


def answers(url, *, auth=None, body=None):
    """The status and the body of an answer."""
    headers = {"Authorization": "Basic " + base64.b64encode(auth.encode()).decode()} if auth else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, headers=headers, data=body)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def start(stack, command, *, env, log):
    out = stack.enter_context(log.open("wb"))
    process = subprocess.Popen([str(BIN / command[0]), *command[1:]], env=env, cwd=PROJECT, stdout=out, stderr=out)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


class Site:
    """All of it, running."""

    def __init__(self, *, api, env, store, encoder, workers, folder):
        self.api, self.env, self.store, self.encoder = api, env, store, encoder
        self.workers, self.folder = workers, folder

    def prefect(self, *arguments):
        command = [str(BIN / arguments[0]), *arguments[1:]]
        done = subprocess.run(command, env=self.env, cwd=PROJECT, capture_output=True, text=True, timeout=600)
        logs = "".join(f"\n--- {log.name}\n{log.read_text()[-3000:]}" for log in self.folder.glob("worker-*.txt"))
        assert done.returncode == 0, done.stdout + done.stderr + logs
        return done.stdout

    def run(self, deployment, **parameters):
        self.prefect("prefect", "deployment", "run", deployment, "--params", json.dumps(parameters), "--watch")


@pytest.fixture(scope="module")
def site(tmp_path_factory, any_port, s3_endpoint, drawn_people):
    from store.s3_requests import ask
    from store.storage import Storage
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    folder = tmp_path_factory.mktemp("site")
    with contextlib.suppress(Exception):
        ask("create_bucket", "s3://lookalike", Bucket="lookalike")
    bucket = Storage("s3://lookalike")
    for picture in sorted(drawn_people.rglob("*.jpg")):
        bucket.upload(f"photos/{picture.parent.name}/{picture.name}", picture)
    store = "s3://lookalike/store"
    encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))
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
    served = plain | environment("server", **instead)
    served |= {"PREFECT_HOME": str(folder / "server"), "PREFECT_SERVER_API_HOST": "127.0.0.1"}
    served |= {"PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "ui")}
    client = plain | environment("worker", **instead) | {"PREFECT_WORKER_QUERY_SECONDS": "2"}
    client |= {"PREFECT_HOME": str(folder / "client"), "PREFECT_LOGGING_LEVEL": "INFO"}
    api = client["PREFECT_API_URL"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(postgres(database))
        start(stack, COMPOSE["services"]["server"]["command"], env=served, log=folder / "server.txt")
        wait_for(lambda: answers(f"{api}/health")[0] == 200)
        done = subprocess.run(
            [str(BIN / "lookalike"), "deploy"], env=client, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stdout + done.stderr
        workers = {}
        for name, service in (("one", "worker"), ("two", "worker"), ("gpu", "worker-gpu")):
            workers[name] = any_port()
            env = client | {
                "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
                "PREFECT_WORKER_WEBSERVER_PORT": str(workers[name]),
            }
            command = [*COMPOSE["services"][service]["command"], "--name", name]
            start(stack, command, env=env, log=folder / f"worker-{name}.txt")
        yield Site(api=api, env=client, store=store, encoder=encoder, workers=workers, folder=folder)


@pytest.fixture
def client(site):
    from prefect import settings
    from prefect.client.orchestration import get_client

    changes = {settings.PREFECT_API_URL: site.api, settings.PREFECT_API_AUTH_STRING: AUTH}
    with settings.temporary_settings(changes), get_client(sync_client=True) as client:
        yield client


def test_only_who_knows_the_password_is_let_in_and_no_page_of_another_site_can_act(site):
    assert answers(f"{site.api}/health")[0] == 200
    assert answers(f"{site.api}/flows/count", body=b"{}")[0] == 401
    assert answers(f"{site.api}/flows/count", body=b"{}", auth="operator:wrong")[0] == 401
    assert answers(f"{site.api}/flows/count", body=b"{}", auth=AUTH)[0] == 403  # without a CSRF token
    assert answers(f"{site.api}/version", auth=AUTH)[0] == 200
    status, text = answers(f"{site.api}/metrics", auth=AUTH)
    assert status == 200
    assert "# TYPE" in text


def test_each_worker_says_that_it_is_well(site):
    for port in site.workers.values():
        wait_for(lambda port=port: answers(f"http://127.0.0.1:{port}/health")[0] == 200)


def test_two_builds_of_one_store_started_together_run_on_two_workers_one_after_the_other(site, client):
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    from store.layout import open_store
    from store.versions import published_numbers

    deployment = client.read_deployment_by_name("build-index/s3")
    parameters = {"encoder": site.encoder, "labels": "folder", "shard_photos": 6}
    runs = [client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id for _ in range(2)]
    wait_for(lambda: all(client.read_flow_run(run).state.is_final() for run in runs), seconds=600)
    ended = [client.read_flow_run(run) for run in runs]
    assert [run.state.name for run in ended] == ["Completed", "Completed"]
    assert published_numbers(open_store(site.store)) == [1]
    assert sorted(run.name for run in ended) == [
        "build s3://lookalike/photos +24 photos",
        "build s3://lookalike/photos, nothing new",
    ]
    took = {name: (site.folder / f"worker-{name}.txt").read_text() for name in ("one", "two")}
    assert all(sum(str(run) in text for run in runs) == 1 for text in took.values()), "one worker took both"
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=runs))
    assert wait_for(lambda: [log for log in client.read_logs(wanted, limit=200) if "waiting for store-" in log.message])


def test_the_other_deployments_run_on_their_pools(site, client, drawn_people, tmp_path):
    pictures = sorted(drawn_people.rglob("*.jpg"))
    site.run("query/local", image=str(pictures[0]), store=site.store, k=2)
    pairs = tmp_path / "pairs.csv"
    named = [str(picture.relative_to(drawn_people)) for picture in pictures]
    rows = [
        f"{named[0]},{named[1]},1",
        f"{named[3]},{named[4]},1",
        f"{named[0]},{named[3]},0",
        f"{named[1]},{named[6]},0",
    ]
    pairs.write_text("first,second,same\n" + "\n".join(rows) + "\n")
    site.run("evaluate/local", images=str(drawn_people), pairs=str(pairs), store=site.store, encoder=site.encoder)
    site.run("forget/local", store=site.store)
    quick = {"epochs": 1, "batches_per_epoch": 1, "batch_people": 2, "batch_photos": 2}
    site.run(
        "train-encoder/gpu",
        source="s3://lookalike/photos",
        store=site.store,
        device="cpu",
        network={"width": 0.25, "dimension": 32},
        settings=quick,
    )
    assert "train-encoder" in (site.folder / "worker-gpu.txt").read_text()
    site.run("train-encoder/local", source="s3://lookalike/photos", store=site.store, settings=quick)


def test_a_run_whose_process_is_killed_is_started_once_more_and_completes(site, client, drawn_people, tmp_path):
    deployment = client.read_deployment_by_name("build-index/local")
    store = str(tmp_path / "store")
    parameters = {"source": str(drawn_people), "store": store, "encoder": site.encoder, "shard_photos": 1, "workers": 1}
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    assert new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32)) == site.encoder
    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id
    wait_for(lambda: list((tmp_path / "store").glob("photos/*/*.parquet")), seconds=300)
    family = {pid for pid in pids() if f"PREFECT__FLOW_RUN_ID={run}" in environ_of(pid)}
    (process,) = [pid for pid in family if parent_of(pid) not in family]
    os.kill(process, signal.SIGKILL)
    ended = wait_for(lambda: (found := client.read_flow_run(run)).state.is_completed() and found, seconds=400)
    assert ended.run_count == 2
    assert (tmp_path / "store" / "versions" / "CURRENT").read_text() == "1"


def pids():
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def environ_of(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    return ""


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
