"""Task: code one block of a new index's faces, in a supervised child."""

from prefect import get_run_logger, task

from store.refs import ArtifactRef
from tasks import policies
from tasks.steps import code_faces as step
from tasks.steps.children import run_in_child

__all__ = ["code_faces"]


@task(name="code-faces", task_run_name="code-faces-{block.rows}-faces", **policies.CODE)
def code_faces(block: ArtifactRef, *, store: str, coder: step.Coder, device: str = "cpu") -> step.CodedBlock:
    """Code a block of faces as the index keeps them."""
    done = run_in_child(step.code_faces, block, store=store, coder=coder, device=device)
    get_run_logger().info("block of %d faces %s", block.rows, "coded" if done.computed else "was coded already")
    return done
