"""Put everything in `deployments/` on a Prefect server: pools, limits, deployments, alerts and other automations."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.project import PROJECT

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

__all__ = ["ALERT_BLOCK", "ALERT_VARIABLE", "FILE", "deploy_everything", "read_automation"]

FILE = PROJECT / "deployments" / "prefect.yaml"
AUTOMATIONS = PROJECT / "deployments" / "automations"
POOLS = ("cpu", "gpu")

ALERT_BLOCK = "lookalike-alerts"
"""The notification block that alerts are sent through. It may be made in Prefect's UI, of any kind that notifies."""

ALERT_VARIABLE = "LOOKALIKE_ALERT_URL"
"""An address that takes a POST of {"text": …}, as chat services do; the block is made of it."""

Schedules = dict[tuple[str, str], bool]


def deploy_everything(*, store: str, schedules_on: bool) -> dict[str, Any]:
    """Bring the server that PREFECT_API_URL names up to the files; what is there already is changed, never doubled.

    A schedule that somebody has paused or resumed stays as they left it.

    Args:
        store: the uri that deployments are given as their store.
        schedules_on: whether schedules that are new start as the files say; otherwise they are paused.

    Returns:
        Names of the pools, deployments and automations, and whether alerts are sent to anybody.

    Raises:
        LookalikeError: Prefect refused the deployments; the message is its own.
    """
    from prefect.client.orchestration import get_client  # noqa: PLC0415

    with get_client(sync_client=True) as client:
        for pool in POOLS:
            _make_pool(client, pool)
        _make_gpu_limit(client)
        before = _schedules(client)
        _deploy_all(store)
        _settle_schedules(client, before, schedules_on=schedules_on)
        block = _alert_block(client)
        names = [_put_automation(client, file, block=block) for file in sorted(AUTOMATIONS.glob("*.yaml"))]
        return {
            "pools": list(POOLS),
            "deployments": sorted(_deployments(client)),
            "automations": names,
            "alerts_sent": block is not None,
        }


def read_automation(file: Path, *, block: str | None) -> dict[str, Any]:
    """One automation as Prefect takes it.

    Args:
        file: YAML with the keys of Prefect's automations; `block` in an action names a notification block.
        block: that block's id; without one its actions do nothing, so that an alert shows in the event feed only.
    """
    import yaml  # noqa: PLC0415

    data: dict[str, Any] = yaml.safe_load(file.read_text())
    return data | {"actions": [_action(action, block) for action in data["actions"]]}


def _action(action: dict[str, Any], block: str | None) -> dict[str, Any]:
    if "block" not in action:
        return action
    if block is None:
        return {"type": "do-nothing"}
    return {name: value for name, value in action.items() if name != "block"} | {"block_document_id": block}


def _make_pool(client: "SyncPrefectClient", name: str) -> None:
    """A pool of processes, unless there is one of the name, of whatever kind."""
    from prefect.client.schemas.actions import WorkPoolCreate  # noqa: PLC0415
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415
    from prefect.workers.process import ProcessWorker  # noqa: PLC0415

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


def _make_gpu_limit(client: "SyncPrefectClient") -> None:
    """One piece of work for GPUs at a time, unless an operator has set another number."""
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415

    from tasks.policies import GPU_LIMIT  # noqa: PLC0415

    try:
        client.read_global_concurrency_limit_by_name(GPU_LIMIT)
    except ObjectNotFound:
        client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, 1)


def _deployments(client: "SyncPrefectClient") -> dict[str, Any]:
    """The project's deployments on the server, by `flow/name`."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags  # noqa: PLC0415

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=["lookalike"]))
    found = client.read_deployments(deployment_filter=ours, limit=200)
    flows = {one.flow_id: client.read_flow(one.flow_id).name for one in found}
    return {f"{flows[one.flow_id]}/{one.name}": one for one in found}


def _schedules(client: "SyncPrefectClient") -> Schedules:
    """Whether each schedule is on, by deployment and slug."""
    return {
        (name, schedule.slug or ""): schedule.active
        for name, deployment in _deployments(client).items()
        for schedule in deployment.schedules
    }


def _settle_schedules(client: "SyncPrefectClient", before: Schedules, *, schedules_on: bool) -> None:
    for name, deployment in _deployments(client).items():
        for schedule in deployment.schedules:
            wanted = before.get((name, schedule.slug or ""), schedule.active and schedules_on)
            if schedule.active != wanted:
                client.update_deployment_schedule(deployment.id, schedule.id, active=wanted)


def _alert_block(client: "SyncPrefectClient") -> str | None:
    """The id of the block that alerts go through; it is made, or made anew, where the environment names an address."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock  # noqa: PLC0415

    url = os.environ.get(ALERT_VARIABLE)
    if url:
        block = CustomWebhookNotificationBlock(
            name=ALERT_BLOCK, url=url, json_data={"text": "{{subject}}\n{{body}}"}, headers=None, cookies=None
        )
        save: Callable[..., Any] = block.save
        save(ALERT_BLOCK, overwrite=True)
    found = [one for one in client.read_block_documents(limit=200) if one.name == ALERT_BLOCK]
    return str(found[0].id) if found else None


def _put_automation(client: "SyncPrefectClient", file: Path, *, block: str | None) -> str:
    from prefect.events.schemas.automations import AutomationCore  # noqa: PLC0415

    automation = AutomationCore.model_validate(read_automation(file, block=block))
    there = client.read_automations_by_name(automation.name)
    if there:
        client.update_automation(there[0].id, automation.model_copy(update={"enabled": there[0].enabled}))
    else:
        client.create_automation(automation)
    return automation.name


def _deploy_all(store: str) -> None:
    """Run Prefect's own command in the project's root: entrypoints are relative to it, and runs start there."""
    from store.errors import LookalikeError  # noqa: PLC0415

    file = str(FILE.relative_to(PROJECT))
    command = [str(Path(sys.executable).parent / "prefect"), "--no-prompt", "deploy", "--all", "--prefect-file", file]
    env = os.environ | {"LOOKALIKE_STORE": store}
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise LookalikeError(f"`{' '.join(command)}` failed: {' '.join((done.stdout + done.stderr).split())}")
