"""Task: look through every byte of a store for what was forgotten."""

from typing import Any

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import forget as step
from tasks.steps.forget_purge import Purged

__all__ = ["prove_forgotten"]


@task(name="prove-forgotten", **policies.ONCE)
def prove_forgotten(ticket: str | None, *, store: str, purged: Purged) -> dict[str, Any]:
    """Scan, and put the answer on record."""
    proof = step.prove_forgotten(ticket, store=store, purged=purged)
    get_run_logger().info("looked through %d files: %s", proof["scan"]["files"], proof["scan"]["hits"])
    return proof
