"""Task: ask a version who is in a photo."""

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import query_result as step
from tasks.steps.query_options import QueryOptions
from tasks.steps.query_result import QueryResult

__all__ = ["query_photo"]


@task(name="query-photo", **policies.ONCE)
def query_photo(
    image: str | None, *, store: str, face_id: str | None, options: QueryOptions, pictures: bool
) -> QueryResult:
    """Find the most similar known faces of each face in a photo, in each photo of a folder, or of a known face."""
    found = step.query_result(image, store=store, face_id=face_id, options=options, pictures=pictures)
    for warning in found.warnings:
        get_run_logger().warning(warning)
    get_run_logger().info("%s: %d matches are shown", found.asked, len(found.rows))
    return found
