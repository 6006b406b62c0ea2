"""Task: look for photos that no build has dealt with."""

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import look_for_photos as step

__all__ = ["look_for_photos"]


@task(name="look-for-photos", **policies.ONCE)
def look_for_photos(source: str, *, store: str, settle_s: float, longest_s: float) -> step.Look:
    """Compare a source's listing with the published version."""
    look = step.look_until_settled(source, store=store, settle_s=settle_s, longest_s=longest_s)
    get_run_logger().info("%s against version %s: %s", look.source, look.version, look.counts)
    return look
