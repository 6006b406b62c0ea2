"""Flow `query`: ask a store who is in a photo."""

from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from pydantic import Field

from tasks import policies
from tasks.query_photo import query_photo

__all__ = ["query"]


@flow(
    name="query",
    flow_run_name="query {image}",
    persist_result=True,
    result_serializer="json",
    **policies.QUERY_RUN,
)
def query(
    image: str,
    store: str = "lookalike-store",
    k: Annotated[int, Field(ge=1, le=1000)] = 10,
    version: int | None = None,
) -> dict[str, Any]:
    """Find the most similar known faces of each face in a photo.

    The answer is the run's result, and a table in Prefect's UI.

    Args:
        image: a path, or a url.
        store: a folder or an s3:// prefix that holds a version.
        k: matches a face.
        version: the version to ask; the current one when empty.
    """
    answer = query_photo(image, store=store, k=k, version=version)
    rows = [
        {"face": n, "cosine": match.cosine, "label": match.label or "", "photo": match.uri, "face_id": match.face_id}
        for n, face in enumerate(answer.faces, start=1)
        for match in face.matches
    ]
    create_table_artifact(rows, key="matches", description=f"version {answer.version} on {answer.image}")
    return answer.as_json()
