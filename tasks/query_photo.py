"""Task: ask a version who is in a photo."""

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import query_photo as step
from tasks.steps.answer import Answer

__all__ = ["query_photo"]


@task(name="query-photo", **policies.ONCE)
def query_photo(image: str, *, store: str, k: int, version: int | None) -> Answer:
    """Find the most similar known faces of each face in a photo."""
    answer = step.query_photo(image, store=store, k=k, version=version)
    for warning in answer.warnings:
        get_run_logger().warning(warning)
    get_run_logger().info("version %d answered %s: %d faces", answer.version, answer.image, len(answer.faces))
    return answer
