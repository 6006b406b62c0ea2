import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
FILE = PROJECT / "deployments" / "prefect.yaml"
BIN = Path(sys.executable).parent
KNOWN = {
    "name", "entrypoint", "description", "tags", "parameters", "enforce_parameter_schema", "concurrency_limit", "work_pool",
    "triggers", "schedules",
}  # fmt: skip


def deployments():
    return yaml.safe_load(FILE.read_text())["deployments"]


def test_every_deployment_has_known_keys_and_an_entrypoint_that_is_a_flow_with_its_parameters():
    names = []
    for entry in deployments():
        assert set(entry) <= KNOWN
        module, function = entry["entrypoint"].removesuffix(".py").split(".py:")
        flow = getattr(importlib.import_module(module.replace("/", ".")), function)
        assert set(entry["parameters"]) <= set(flow.parameters.properties)
        names.append(f"{flow.name}/{entry['name']}")
    wanted = ["build-index/local", "train-encoder/local", "query/local", "evaluate/local", "forget/local"]
    assert names == [*wanted, "watch-source/local"]


def test_readme_names_every_deployment():
    readme = (PROJECT / "README.md").read_text()
    for entry in deployments():
        module, function = entry["entrypoint"].split(".py:")
        flow = getattr(importlib.import_module(module.replace("/", ".")), function)
        assert f"'{flow.name}/{entry['name']}'" in readme


@pytest.mark.flow
def test_the_sequence_of_the_readme_deploys_and_a_worker_publishes_and_answers(prefect_server, drawn_people, tmp_path):
    from store.layout import open_store
    from store.versions import read_version
    from tasks.steps.train_encoder import NetworkSettings, new_encoder

    store = str(tmp_path / "store")
    encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))
    env = os.environ | {"PREFECT_API_URL": prefect_server, "PREFECT_WORKER_QUERY_SECONDS": "1"}

    def prefect(*arguments: str) -> str:
        done = subprocess.run(
            [str(BIN / "prefect"), *arguments], env=env, cwd=PROJECT, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    prefect("work-pool", "create", "cpu", "--type", "process", "--overwrite")
    prefect("--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
    log = tmp_path / "worker.txt"
    command = [str(BIN / "prefect"), "worker", "start", "--pool", "cpu"]
    with log.open("wb") as out, subprocess.Popen(command, env=env, cwd=PROJECT, stdout=out, stderr=out) as worker:
        try:
            parameters = {"source": str(drawn_people), "store": store, "encoder": encoder, "labels": "folder"}
            prefect("deployment", "run", "build-index/local", "--params", json.dumps(parameters), "--watch")
            version = read_version(open_store(store))
            assert version.number == 1
            assert version.manifest.photos == 24
            picture = sorted(drawn_people.rglob("*.jpg"))[0]
            parameters = {"image": str(picture), "store": store, "k": 3}
            prefect("deployment", "run", "query/local", "--params", json.dumps(parameters), "--watch")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()[-6000:]}") from error
        finally:
            worker.terminate()
