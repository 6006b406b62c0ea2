"""Task: join shards into a version's files."""

from prefect import get_run_logger, task

from store.refs import ArtifactRef
from tasks import policies
from tasks.steps import write_index as step
from tasks.steps.contract import Contract
from tasks.steps.plan_build import BuildPlan
from tasks.steps.resolve_encoder import EncoderRef

__all__ = ["write_index"]


@task(name="write-index", **policies.ONCE)
def write_index(plan: BuildPlan, *, store: str, contract: Contract, encoder: EncoderRef) -> ArtifactRef:
    """Write a version's index, tables and draft manifest."""
    draft = step.write_index(plan, store=store, contract=contract, encoder=encoder)
    get_run_logger().info("wrote an index of %d faces from %d photos", draft.rows, plan.table.rows)
    return draft
