"""Task: join shards into a version's files."""

from prefect import get_run_logger, task

from store.refs import ArtifactRef
from tasks import policies
from tasks.steps import write_index as step
from tasks.steps.contract import Contract
from tasks.steps.plan_build import BuildPlan
from tasks.steps.plan_coding import CodingPlan
from tasks.steps.resolve_encoder import EncoderRef

__all__ = ["write_index"]


@task(name="write-index", **policies.ONCE)
def write_index(
    plan: BuildPlan, *, store: str, contract: Contract, encoder: EncoderRef, device: str = "cpu"
) -> ArtifactRef | CodingPlan:
    """Write a version's index, tables and draft manifest; of an index of many faces, train it."""
    begun = step.begin_index(plan, store=store, contract=contract, encoder=encoder, device=device)
    if isinstance(begun, ArtifactRef):
        get_run_logger().info("wrote an index of %d faces from %d photos", begun.rows, plan.table.rows)
    else:
        told = len(begun.requests), len(begun.finished)
        get_run_logger().info("trained an index; %d blocks are to be coded, %d were coded already", *told)
    return begun
