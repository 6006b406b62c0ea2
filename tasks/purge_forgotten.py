"""Task: remove from a store whatever its tags tell of."""

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import forget as step
from tasks.steps.forget_purge import Purged

__all__ = ["purge_forgotten"]


@task(name="purge-forgotten", **policies.ONCE)
def purge_forgotten(*, store: str) -> Purged:
    """Replace shards and versions, and remove what is left over."""
    purged = step.purge_store(store=store)
    get_run_logger().info("replaced %d versions, removed %d files of shards", len(purged.versions), purged.shards)
    return purged
