"""Flow `query`: ask a store who is in a photo."""

from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import Field

from tasks.query_photo import query_photo
from tasks.steps.contact_sheet import contact_sheet_markdown

__all__ = ["query"]


@flow(name="query", flow_run_name="query {image}", persist_result=True, result_serializer="json")
def query(
    image: str,
    store: str = "lookalike-store",
    k: Annotated[int, Field(ge=1, le=1000)] = 10,
    version: int | None = None,
    pictures: bool = True,
) -> dict[str, Any]:
    """Find the most similar known faces of each face in a photo.

    The answer is the run's result; in Prefect's UI stand a table and a contact sheet of it.

    Args:
        image: a path, or a url.
        store: a folder or an s3:// prefix that holds a version.
        k: matches a face.
        version: the version to ask; the current one when empty.
        pictures: make the contact sheet, whose thumbnails of faces Prefect then keeps in its database.
    """
    answer = query_photo(image, store=store, k=k, version=version)
    rows = [
        {
            "face": face.number,
            "sure": match.grade,
            "cosine": match.cosine,
            "label": match.label or "",
            "photo": match.uri,
            "face_id": match.face_id,
        }
        for face in answer.faces
        for match in face.matches
    ]
    create_table_artifact(rows, key="matches", description=f"version {answer.version} on {answer.image}")
    if pictures:
        sheet = contact_sheet_markdown(answer, store=store)
        create_markdown_artifact(sheet, key="contact-sheet", description=f"version {answer.version} on {answer.image}")
    return answer.as_json()
