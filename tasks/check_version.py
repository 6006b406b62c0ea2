"""Task: check a drafted version."""

from prefect import get_run_logger, task

from store.refs import ArtifactRef
from tasks import policies
from tasks.steps import check_version as step

__all__ = ["check_version"]


@task(name="check-version", **policies.ONCE)
def check_version(draft: ArtifactRef, *, store: str, device: str = "cpu") -> step.CheckedVersion:
    """Read a draft back and measure its index."""
    checked = step.check_version(draft, store=store, device=device)
    get_run_logger().info("checked %d faces, recall@10 %s", checked.draft.rows, checked.recall_at_10)
    return checked
