"""Task: embed the faces of one shard, in a supervised child."""

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import embed_faces as step
from tasks.steps.children import run_in_child
from tasks.steps.contract import Contract
from tasks.steps.find_faces import FoundFaces, shard_of
from tasks.steps.resolve_encoder import EncoderRef

__all__ = ["embed_faces"]


@task(name="embed-faces", **policies.EMBED)
def embed_faces(
    found: FoundFaces, *, store: str, contract: Contract, encoder: EncoderRef, device: str = "cpu"
) -> step.EmbeddedFaces:
    """Embed every face of a committed shard."""
    done = run_in_child(step.embed_faces, found, store=store, contract=contract.id, encoder=encoder, device=device)
    what = "embedded" if done.computed else "were stored already"
    get_run_logger().info("shard %s: %d faces %s", shard_of(found.shard), done.embeddings.rows, what)
    return done
