"""Task: publish a checked version."""

from prefect import get_run_logger, task

from store.refs import ArtifactRef
from tasks import policies
from tasks.steps import publish_version as step
from tasks.steps.plan_build import BuildPlan

__all__ = ["publish_version"]


@task(name="publish-version", **policies.ONCE)
def publish_version(draft: ArtifactRef, *, store: str, plan: BuildPlan) -> int | None:
    """Make a checked draft the current version."""
    number = step.publish_version(draft, store=store, plan=plan)
    what = "nothing new to publish" if number is None else f"published version {number}: {draft.rows} faces"
    get_run_logger().info(what)
    return number
