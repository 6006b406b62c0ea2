"""The files of `deployments/` say what they seem to: Prefect ignores keys that it does not know."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
FILE = PROJECT / "deployments" / "prefect.yaml"
AUTOMATIONS = sorted((PROJECT / "deployments" / "automations").glob("*.yaml"))
OURS = {
    "build-index/local", "build-index/s3", "query/local", "train-encoder/local", "train-encoder/gpu",
    "evaluate/local", "forget/local", "watch-source/local", "watch-source/local-nightly", "watch-source/s3",
    "watch-source/s3-nightly",
}  # fmt: skip


def deployments():
    return yaml.safe_load(FILE.read_text())["deployments"]


def flow_of(entry):
    module, function = entry["entrypoint"].split(".py:")
    return getattr(importlib.import_module(module.replace("/", ".")), function)


def name_of(entry):
    return f"{flow_of(entry).name}/{entry['name']}"


def test_every_deployment_has_keys_that_prefect_knows_and_parameters_that_its_flow_has():
    from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, RawScheduleConfig, WorkPoolConfig

    assert set(yaml.safe_load(FILE.read_text())) <= {*PrefectYamlModel.model_fields, "definitions"}
    for entry in deployments():
        assert set(entry) <= set(DeploymentConfig.model_fields), name_of(entry)
        assert set(entry["work_pool"]) <= set(WorkPoolConfig.model_fields)
        assert all(set(one) <= set(RawScheduleConfig.model_fields) for one in entry.get("schedules", []))
        assert set(entry["parameters"]) <= set(flow_of(entry).parameters.properties)
        assert "lookalike" in entry["tags"]
        assert entry["enforce_parameter_schema"]
    names = [name_of(entry) for entry in deployments()]
    assert len(names) == len(set(names))
    assert set(names) == OURS


def test_no_schedule_has_parameters_which_switching_it_on_would_lose():
    assert not any("parameters" in one for entry in deployments() for one in entry.get("schedules", []))


def test_every_deployment_uses_a_pool_that_is_made():
    from app.deploying import POOLS

    assert {entry["work_pool"]["name"] for entry in deployments()} == set(POOLS)


def test_readme_or_the_operators_page_names_every_deployment():
    pages = (PROJECT / "README.md").read_text() + (PROJECT / "docs" / "operate.md").read_text()
    assert {name for entry in deployments() if f"'{(name := name_of(entry))}'" not in pages} == set()


def test_every_field_of_a_run_s_form_is_explained_and_every_run_has_a_time_out():
    for entry in deployments():
        flow = flow_of(entry)
        assert flow.timeout_seconds, flow.name
        for name, field in flow.parameters.properties.items():
            assert field.get("description", "").strip(), f"{flow.name}: {name} has no description"


@pytest.mark.parametrize("file", AUTOMATIONS, ids=lambda file: file.stem)
def test_an_automation_has_keys_that_prefect_knows_and_says_nothing_that_is_dropped(file):
    from prefect.events.schemas.automations import AutomationCore

    from app.deploying import read_automation

    for block in ("8a3f8b2e-6f57-4f3f-9c39-0a8f5c1f3a11", None):
        data = read_automation(file, block=block)
        model = AutomationCore.model_validate(data)
        assert set(data) <= set(AutomationCore.model_fields)
        assert set(data["trigger"]) <= set(type(model.trigger).model_fields)
        for said, understood in zip(data["actions"], model.actions, strict=True):
            assert set(said) <= set(type(understood).model_fields)
        assert "lookalike" in data["tags"]
        assert ("send-notification" in str(data)) is (block is not None and "block" in file.read_text())


def test_alerts_are_explained_for_whoever_gets_one():
    page = (PROJECT / "docs" / "operate.md").read_text()
    for file in AUTOMATIONS:
        assert yaml.safe_load(file.read_text())["name"] in page


def test_the_image_s_file_has_nothing_a_linter_minds_and_takes_only_what_is_there(tmp_path):
    file = PROJECT / "deployments" / "Dockerfile"
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    careless = tmp_path / "Dockerfile"
    careless.write_text("FROM python\nRUN cd /tmp && pip install uv\n")
    assert subprocess.run([hadolint, careless], capture_output=True, timeout=60).returncode != 0
    text = file.read_text()
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == "10001:10001"
    assert "HEALTHCHECK" in text
    taken = re.findall(r"^!(\S+)$", (file.parent / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert {name for name in taken if not (PROJECT / name).exists()} == set()
    floors = {name for name in ("app", "flows", "models", "store", "tasks", "deployments") if name not in taken}
    assert floors == set()


def test_compose_follows_its_schema_opens_ports_on_loopback_only_and_holds_no_secret():
    file = PROJECT / "deployments" / "compose.yaml"
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    services = yaml.safe_load(file.read_text())["services"]
    assert all(port.startswith("127.0.0.1:") for one in services.values() for port in one.get("ports", []))
    asked = set(re.findall(r"\$\{(\w+)", file.read_text()))
    example = (PROJECT / "deployments" / ".env.example").read_text()
    assert asked == set(re.findall(r"^(\w+)=", example, re.MULTILINE))
    assert "deployments/.env" in (PROJECT / ".gitignore").read_text()
    for name, one in services.items():
        assert not re.search(r"(?i)(password|secret|auth)\w*: *['\"]?[\w:]+$", yaml.safe_dump(one)), name
        assert ":latest" not in one["image"]
        if one["image"].startswith("lookalike"):
            assert one["read_only"], name
            assert one["cap_drop"] == ["ALL"]
    server = services["server"]["environment"]
    assert server["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert server["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith("filesystem")


def test_workers_for_kubernetes_follow_its_schema_and_run_as_nobody_special():
    import kubernetes_validate

    documents = list(yaml.safe_load_all((PROJECT / "deployments" / "kubernetes" / "workers.yaml").read_text()))
    for document in documents:
        kubernetes_validate.validate(document, "1.37", strict=True)
    pods = [one["spec"]["template"]["spec"] for one in documents if one["kind"] in ("Deployment", "Job")]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
