"""Task: put one shard together from rows of others."""

from prefect import get_run_logger, task

from store.refs import ArtifactRef
from tasks import policies
from tasks.steps import compact_shards as step
from tasks.steps.contract import Contract
from tasks.steps.find_faces import shard_of
from tasks.steps.resolve_encoder import EncoderRef

__all__ = ["compact_shards"]


@task(name="compact-shards", task_run_name="compact-shards-{request.rows}-photos", **policies.ONCE)
def compact_shards(
    request: ArtifactRef, *, store: str, contract: Contract, parent: int, encoder: EncoderRef
) -> step.CompactedShard:
    """Carry stored photos, faces and embeddings into a new shard."""
    done = step.compact_shards(request, store=store, contract=contract.id, parent=parent, encoder=encoder)
    get_run_logger().info("shard %s of %d photos put together", shard_of(request), request.rows)
    return done
