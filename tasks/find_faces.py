"""Task: find and align the faces of one shard, in a supervised child."""

from prefect import get_run_logger, task

from store.refs import ArtifactRef
from tasks import policies
from tasks.steps import find_faces as step
from tasks.steps.contract import Contract
from tasks.steps.wall import run_behind_wall

__all__ = ["find_faces"]


@task(name="find-faces", task_run_name="find-faces-{request.rows}-photos", **policies.FIND)
def find_faces(request: ArtifactRef, *, store: str, contract: Contract, device: str = "cpu") -> step.FoundFaces:
    """Find every face of a shard's photos."""
    found = run_behind_wall(step.find_faces, request, store=store, contract=contract, device=device)
    what = "computed" if found.computed else "was stored already"
    get_run_logger().info("shard %s of %d photos %s", step.shard_of(request), request.rows, what)
    return found
