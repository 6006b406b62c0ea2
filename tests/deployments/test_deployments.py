"""One machine, as README and docs/operate.md say: a real server and worker, deployed, used and stopped."""

import json
import os
import shutil
import subprocess
import time

import pytest

from tests.deployments.processes import program, run, running, wait_for

pytestmark = pytest.mark.flow

BROKEN = 2


@pytest.fixture(scope="module")
def up(tmp_path_factory, alerts, any_port):
    """What `lookalike up` said, and the environment of the user who typed it."""
    folder = tmp_path_factory.mktemp("up")
    (folder / "user").mkdir()
    dropped = ("PREFECT_HOME", "LOOKALIKE_CACHE", "XDG_CACHE_HOME", "TMPDIR")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env |= {"HOME": str(folder / "user"), "PREFECT_HOME": str(folder / "home"), "LOOKALIKE_ALERT_URL": alerts.url}
    env["PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS"] = "5"
    try:
        said = json.loads(run("lookalike", "up", "--port", str(any_port()), "--json", env=env).splitlines()[-1])
        yield said, env | {"PREFECT_API_URL": said["api"]}, folder
    finally:
        run("lookalike", "down", env=env)


@pytest.fixture
def client(up):
    from prefect import settings
    from prefect.client.orchestration import get_client

    changes = {settings.PREFECT_API_URL: up[0]["api"], settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with (
        settings.temporary_settings({**changes, settings.PREFECT_LOGGING_TO_API_ENABLED: False}),
        get_client(sync_client=True) as client,
    ):
        yield client


@pytest.fixture
def store_with_an_encoder(tmp_path):
    """A store that has an encoder in use and no version."""
    from store.encoders import promote_encoder
    from store.layout import open_store
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    store = str(tmp_path / "store")
    encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))
    promote_encoder(open_store(store), encoder)
    return store


QUARTERS = {(hour, minute) for hour in range(24) for minute in (0, 15, 30, 45)}
PLANNED = {
    "forget/local": {(2, 40)},
    "watch-source/local": QUARTERS,
    "watch-source/local-nightly": {(1, 10)},
    "watch-source/s3": QUARTERS,
    "watch-source/s3-nightly": {(1, 10)},
}


def schedules(client):
    """The schedules on the server, by deployment; each has one at most."""
    found = {name_of(client, one): one.schedules for one in client.read_deployments()}
    assert all(len(those) <= 1 for those in found.values())
    return {name: those[0] for name, those in found.items() if those}


def name_of(client, deployment):
    return f"{client.read_flow(deployment.flow_id).name}/{deployment.name}"


def switch_schedules(client, *, on):
    for name, schedule in schedules(client).items():
        deployment = client.read_deployment_by_name(name)
        client.update_deployment_schedule(deployment.id, schedule.id, active=on)


def planned(client, name):
    """The runs that the scheduler has made for a deployment."""
    wanted = client.read_deployment_by_name(name)
    return [one for one in client.read_flow_runs(limit=200) if one.deployment_id == wanted.id]


def test_up_twice_starts_nothing_twice_doubles_nothing_and_leaves_schedules_as_they_were_left(up, client):
    said, env, _ = up
    assert set(schedules(client)) == set(PLANNED)
    assert not any(one.active for one in schedules(client).values())
    switch_schedules(client, on=True)

    again = json.loads(run("lookalike", "up", "--json", env=env).splitlines()[-1])

    assert again == said
    assert len(client.read_deployments()) == len(said["deployments"])
    triggers = [f"build arrived photos ({name})" for name in ("local", "s3")]
    assert sorted(one.name for one in client.read_automations()) == sorted([*said["automations"], *triggers])
    assert {pool.name: pool.type for pool in client.read_work_pools()} == {"cpu": "process", "gpu": "process"}
    assert all(one.active for one in schedules(client).values())
    assert client.read_global_concurrency_limit_by_name("gpu").limit == 1


def test_schedules_plan_runs_at_their_times_with_all_parameters_of_their_deployments(up, client):
    for name, times in PLANNED.items():
        found = wait_for(lambda name=name: planned(client, name))
        assert {(one.expected_start_time.hour, one.expected_start_time.minute) for one in found} <= times
        parameters = client.read_deployment_by_name(name).parameters
        assert all(one.parameters == parameters for one in found)
        assert parameters.get("full", False) is name.endswith("-nightly")
    switch_schedules(client, on=False)


def test_the_readme_s_commands_build_through_the_worker_answer_and_raise_an_alert(up, client, alerts, drawn_people):
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.events.schemas.automations import AutomationCore

    from app.deploying import AUTOMATIONS, read_automation
    from store.layout import open_store
    from store.versions import read_version
    from tasks.policies import store_limit
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    _, env, folder = up
    block = str(next(one.id for one in client.read_block_documents() if one.name == "lookalike-alerts"))
    impatient = read_automation(AUTOMATIONS / "no-build.yaml", block=block) | {"name": "no build for ten seconds"}
    impatient["trigger"] = impatient["trigger"] | {"within": 10}
    client.create_automation(AutomationCore.model_validate(impatient))

    source = folder / "photos"
    source.mkdir()
    for n, picture in enumerate(sorted(drawn_people.rglob("*.jpg"))):
        (source / f"{n}.jpg").write_bytes(picture.read_bytes())
    for n in range(BROKEN):
        (source / f"broken-{n}.jpg").write_bytes(b"no photo")
    store = str(folder / "store")
    encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))
    parameters = json.dumps({"source": str(source), "store": store, "encoder": encoder})
    run("prefect", "deployment", "run", "build-index/local", "--params", parameters, "--watch", env=env)
    version = read_version(open_store(store))
    assert (version.number, version.manifest.photos) == (1, 24 + BROKEN)
    limit = client.read_global_concurrency_limit_by_name(store_limit(store))
    assert (limit.limit, limit.active_slots) == (1, 0)
    assert list((folder / "home" / "metrics").glob("lookalike_build_*.prom"))

    parameters = json.dumps({"image": str(source / "0.jpg"), "store": store, "k": 3})
    run("prefect", "deployment", "run", "query/local", "--params", parameters, "--watch", env=env)
    (matches,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["matches"])))
    assert json.loads(matches.data)[0]["photo"] == str(source / "0.jpg")

    wait_for(lambda: any(f"{BROKEN} of 26 new photos rejected" in text for text in alerts.texts))
    wait_for(lambda: any("no build for two days" in text for text in alerts.texts))


def builds_of(client, source):
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    found = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["build-index"])))
    return [one for one in found if one.parameters["source"] == source]


def test_twenty_photos_dropped_into_a_folder_are_published_once_without_a_hand(
    up, client, store_with_an_encoder, drawn_people, tmp_path
):
    from flows.watch_source import watch_source
    from store.layout import open_store
    from store.versions import current_number, read_version
    from tasks.steps.query_photo import query_photo

    store, inbox, log = store_with_an_encoder, tmp_path / "inbox", tmp_path / "watcher.txt"
    inbox.mkdir()
    with running("lookalike", "watch", str(inbox), "--store", store, "--settle", "1", env=up[1], log=log):
        wait_for(lambda: "watching" in log.read_text(), seconds=120)
        for photo in sorted(drawn_people.rglob("*.jpg"))[:20]:
            shutil.copy(photo, inbox / f"{photo.parent.name}-{photo.name}")
            time.sleep(0.05)
        wait_for(lambda: current_number(open_store(store)), seconds=300)
        time.sleep(2)
    version = read_version(open_store(store))
    assert version.number == 1
    assert version.manifest.photos == 20
    (build,) = builds_of(client, str(inbox))
    assert build.parameters["full"] is False

    picture = sorted(inbox.iterdir())[7]
    assert query_photo(str(picture), store=store, k=1, version=None).faces[0].matches[0].uri == str(picture)

    (told,) = watch_source(store=store, settle_s=0)
    assert (told["photos"], told["added"], told["changed"], told["announced"]) == (20, 0, 0, False)
    assert len(builds_of(client, str(inbox))) == 1


def test_a_build_that_fails_is_told_of(up, client, alerts, tmp_path):
    from flows.build_index import build_index
    from store.errors import SourceError

    with pytest.raises(SourceError):
        build_index(source=str(tmp_path / "nowhere"), store=str(tmp_path / "store"))
    text = wait_for(lambda: next((text for text in alerts.texts if "nowhere failed" in text), None))
    assert "SourceError" in text
    assert up[0]["ui"] in text


def test_nothing_was_written_into_the_user_s_own_folders(up):
    assert list((up[2] / "user").rglob("*")) == []


def test_down_ends_both_processes_and_a_second_down_finds_nothing(up):
    from app.processes import Started

    said, env, folder = up
    state = json.loads((folder / "home" / "up.json").read_text())
    both = [Started(**state["server"]), Started(**state["worker"])]
    assert all(one.alive for one in both)
    assert json.loads(run("lookalike", "down", "--json", env=env))["stopped"]
    assert not any(one.alive for one in both)
    assert not json.loads(run("lookalike", "down", "--json", env=env))["stopped"]
    assert said["home"] == str(folder / "home")


def test_deploy_without_a_server_is_refused_with_one_sentence(tmp_path):
    env = os.environ | {"PREFECT_HOME": str(tmp_path)}
    command = [program("lookalike"), "deploy", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "PREFECT_API_URL names no server" in json.loads(done.stdout)["error"]
