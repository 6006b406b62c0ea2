"""Task: list a source."""

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import list_photos as step

__all__ = ["list_photos"]


@task(name="list-photos", **policies.ONCE)
def list_photos(source: str, *, store: str) -> step.ListedSource:
    """List every photo of a source."""
    listed = step.list_photos(source, store=store)
    get_run_logger().info("listed %s: %d photos, %d other files", listed.source, listed.listing.rows, listed.ignored)
    return listed
