"""Task: plan an evaluation."""

from typing import Any

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import plan_evaluation as step

__all__ = ["plan_evaluation"]


@task(name="plan-evaluation", **policies.ONCE)
def plan_evaluation(pairs: str, **settings: Any) -> step.EvaluationPlan:
    """Find the photos of a pairs file and the shards that hold them."""
    plan = step.plan_evaluation(pairs, **settings)
    get_run_logger().info(
        "planned %d pairs of %s: %d photos, %d shards to compute, %d stored",
        plan.pairs.rows, plan.pairs_file, plan.table.rows, len(plan.requests), len(plan.kept),
    )  # fmt: skip
    return plan
