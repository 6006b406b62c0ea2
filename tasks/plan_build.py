"""Task: plan a build."""

from typing import Any

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import plan_build as step
from tasks.steps.list_photos import ListedSource

__all__ = ["plan_build"]


@task(name="plan-build", **policies.ONCE)
def plan_build(listed: ListedSource, **settings: Any) -> step.BuildPlan:
    """Plan the next version."""
    plan = step.plan_build(listed, **settings)
    get_run_logger().info(
        "planned on version %s: %s, %d shards to compute", plan.parent, plan.counts, len(plan.requests)
    )
    return plan
