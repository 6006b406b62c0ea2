"""What Prefect knows of arrived photos: the event that tells of them, and the builds that have still to deal with them."""

from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import Event, Resource

from store.fingerprints import short_hash
from store.storage import normalise_uri
from tasks.steps.look_for_photos import Look

__all__ = ["ARRIVED", "build_under_way", "emit_arrival"]

ARRIVED = "lookalike.photos.arrived"
"""The event's name; deployments/prefect.yaml starts a build on it."""

_BUILDS = FlowFilter(name=FlowFilterName(any_=["build-index"]))
_WAITING = frozenset({StateType.SCHEDULED, StateType.PENDING})
_SOON = timedelta(minutes=10)


def emit_arrival(look: Look, *, deployment: str, full: bool) -> None:
    """Post the event and wait until the server has it, so that a claim is not kept for an event that got lost.

    Args:
        look: what arrived.
        deployment: name of the build-index deployment that is to build it.
        full: whether that build compares the hash of every photo.

    Raises:
        httpx.HTTPError: the server does not take it.
    """
    resource = {
        "prefect.resource.id": f"lookalike.source.{short_hash([look.store, look.source])}",
        "prefect.resource.name": look.source,
        "lookalike.store": look.store,
        "lookalike.deployment": deployment,
    }
    event = Event(event=ARRIVED, resource=Resource(resource), payload=look.as_json() | {"full": full})
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()


def build_under_way(look: Look) -> str | None:
    """The name of a build that will list the source's photos, or is at work on just these; None if there is none.

    A build that waits lists them when it begins. One that runs has listed already: it is at work on these if they were announced
    before.
    """
    states = _WAITING | ({StateType.RUNNING} if look.record.announced == look.listing else set())
    asked = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(states))))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=_BUILDS, flow_run_filter=asked, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=200
        )
    return next((run.name for run in runs if _deals_with(run, look)), None)


def _deals_with(run: FlowRun, look: Look) -> bool:
    """Whether it is of this store and source, and begins soon: a schedule's runs stand there for days."""
    begins = run.expected_start_time
    if begins is not None and begins > datetime.now(UTC) + _SOON:
        return False
    store, source = (run.parameters.get(name) for name in ("store", "source"))
    return (
        isinstance(store, str)
        and isinstance(source, str)
        and (normalise_uri(store), normalise_uri(source)) == (look.store, look.source)
        and run.parameters.get("retry") is None
    )
