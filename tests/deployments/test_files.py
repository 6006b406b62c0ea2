"""The files of `deployments/` say what they seem to: Prefect ignores keys that it does not know."""

import importlib
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
FILE = PROJECT / "deployments" / "prefect.yaml"
AUTOMATIONS = sorted((PROJECT / "deployments" / "automations").glob("*.yaml"))
OURS = {
    "build-index/local", "build-index/s3", "query/local", "train-encoder/local", "train-encoder/gpu",
    "evaluate/local", "forget/local", "watch-source/local", "watch-source/s3",
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
    assert set(names) >= OURS


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
