"""Flow `forget`: remove who was forgotten from every version, and prove it."""

from typing import Any

from prefect import flow

from flows.showing import log_stage
from tasks import policies
from tasks.prove_forgotten import prove_forgotten
from tasks.purge_forgotten import purge_forgotten
from tasks.steps.progress import Stages

__all__ = ["forget"]


@flow(name="forget", flow_run_name="forget", **policies.LONG_RUN)
def forget(store: str = "lookalike-store", ticket: str | None = None) -> dict[str, Any]:
    """Purge whatever was excluded from a store, and look through all of it.

    Who is meant is no parameter: Prefect keeps parameters. `lookalike forget` excludes them first and passes a ticket that only
    its own process understands; without one, the flow finishes what was begun.

    Args:
        store: a folder or an s3:// prefix that holds a store.
        ticket: of the process that excluded somebody; empty otherwise.
    """
    stages = Stages(tell=log_stage)
    with stages.stage("purge"):
        purged = purge_forgotten(store=store)
    with stages.stage("prove"):
        proof = prove_forgotten(ticket, store=store, purged=purged)
    return proof | {"seconds": stages.seconds()}
