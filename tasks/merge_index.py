"""Task: merge coded blocks of faces into a version's index."""

from collections.abc import Sequence

from prefect import get_run_logger, task

from store.refs import ArtifactRef
from tasks import policies
from tasks.steps import write_index as step
from tasks.steps.code_faces import CodedBlock
from tasks.steps.contract import Contract
from tasks.steps.plan_build import BuildPlan
from tasks.steps.plan_coding import CodingPlan
from tasks.steps.resolve_encoder import EncoderRef

__all__ = ["merge_index"]


@task(name="merge-index", **policies.ONCE)
def merge_index(
    coding: CodingPlan,
    coded: Sequence[CodedBlock],
    plan: BuildPlan,
    *,
    store: str,
    contract: Contract,
    encoder: EncoderRef,
) -> ArtifactRef:
    """Merge and tune a version's index, and write its draft manifest."""
    draft = step.finish_index(coding, coded, plan, store=store, contract=contract, encoder=encoder)
    get_run_logger().info("wrote an index of %d faces from %d blocks", draft.rows, len(coded))
    return draft
