"""What an operator sees of a run in Prefect's UI: its name, a line a stage, how far it is, and what came of it.

Nothing here may stop a run: where Prefect does not answer, the run goes on unseen and says so in its log.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.events import emit_event
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from store.errors import GateRefusedError
from tasks import policies
from tasks.steps.build_report import REJECTS_ALERT, build_table, index_card, run_name
from tasks.steps.plan_build import PlanCounts
from tasks.steps.progress import stage_line

__all__ = ["GATE_REFUSED", "REJECTS_HIGH", "Progress", "log_stage", "name_build", "show_build", "telling_of_a_refusal"]

REJECTS_HIGH = "lookalike.rejects.high"
"""The event that says that too many of a build's new photos could not be used."""

GATE_REFUSED = "lookalike.gate.refused"
"""The event that says that a build's index finds too few of the nearest faces, so that the old version stays."""

_EVERY_S = 5.0


def log_stage(name: str, seconds: float, counts: dict[str, int]) -> None:
    """One line on a stage that is over."""
    get_run_logger().info(stage_line(name, seconds, counts))


def name_build(source: str, counts: PlanCounts) -> None:
    """Name the run after what its plan found: `build s3://archive +1,204 photos`."""
    with _unseen("its name"), get_client(sync_client=True) as client:
        client.update_flow_run(UUID(flow_run.get_id()), name=run_name(source, counts))


class Progress:
    """A progress artifact of one stage, brought up to date every few seconds and at its end.

    Args:
        stage: its name.
        total: how many shards it has; without any there is no artifact.
    """

    def __init__(self, stage: str, total: int) -> None:
        self._stage, self._total = stage, total
        self._start = time.monotonic()
        self._id: Any = None
        if total:
            with _unseen("its progress"), _asked_once():
                key = f"{stage}-progress"
                self._id = create_progress_artifact(0.0, key=key, description=f"{stage}: 0 of {total:,} shards")
        self._next = time.monotonic() + _EVERY_S

    def at(self, done: int) -> None:
        """So many shards are over."""
        now = time.monotonic()
        if self._id is None or (now < self._next and done < self._total):
            return
        left = (now - self._start) / done * (self._total - done)
        text = f"{self._stage}: {done:,} of {self._total:,} shards" + (f", about {left:,.0f} s left" if left else "")
        with _unseen("its progress"), _asked_once():
            update_progress_artifact(self._id, 100.0 * done / self._total, description=text)
        self._next = time.monotonic() + _EVERY_S  # counted from the answer, however long that took


def show_build(summary: dict[str, Any], *, store: str) -> None:
    """A table of what came of a build, the index's card and a link to the report; too many rejects become an event."""
    with _unseen("what came of it"):
        create_table_artifact(build_table(summary), key="build", description=f"version {summary['version']} of {store}")
        if summary["index"]:
            create_markdown_artifact(index_card(summary), key="index", description=f"the index in {store}")
            report = summary["look_in"]["report"]
            link = report if "://" in report else f"file://{report}"
            create_link_artifact(link, link_text=report, key="report", description="the version's report and lineage")
    new = summary["new"]
    if new["rejected"] > REJECTS_ALERT * new["photos"]:
        emit_event(REJECTS_HIGH, resource=_resource(store), payload={"store": store, **new})


@contextlib.contextmanager
def telling_of_a_refusal(store: str) -> Iterator[None]:
    """A gate that refuses what is checked in this block becomes an event; it is raised all the same."""
    try:
        yield
    except GateRefusedError as refused:
        found = {"recall_at_10": f"{refused.recall_at_10:.3f}", "index": refused.key, "why": str(refused)}
        emit_event(GATE_REFUSED, resource=_resource(store), payload={"store": store, **found})
        raise


def _resource(store: str) -> dict[str, str]:
    return {"prefect.resource.id": f"lookalike.{policies.store_limit(store)}", "prefect.resource.name": store}


@contextlib.contextmanager
def _asked_once() -> Iterator[None]:
    """Ask Prefect without its minute of retries: the next figure comes soon, and the build must not wait for a server that is away."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield


@contextlib.contextmanager
def _unseen(what: str) -> Iterator[None]:
    """Go on where Prefect does not take what is shown."""
    try:
        yield
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        get_run_logger().warning("Prefect did not take %s: %s", what, error)
