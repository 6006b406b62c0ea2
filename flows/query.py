"""Flow `query`: ask a store who is in a photo."""

from datetime import date
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run
from pydantic import Field

from tasks import policies
from tasks.query_photo import query_photo
from tasks.steps.query_options import QueryOptions

__all__ = ["query"]

Share = Annotated[float, Field(ge=0, le=1)]


def _run_name() -> str:
    asked = flow_run.get_parameters()
    return f"query face {asked['face_id']}" if asked.get("face_id") else f"query {asked.get('image')}"


@flow(
    name="query",
    flow_run_name=_run_name,
    persist_result=True,
    result_serializer="json",
    **policies.QUERY_RUN,
)
def query(
    image: str | None = None,
    store: str = "lookalike-store",
    k: Annotated[int, Field(ge=1, le=1000)] = 10,
    version: Annotated[int, Field(ge=1)] | None = None,
    pictures: bool = True,
    face_id: Annotated[str, Field(pattern=r"^[0-9]{1,19}$")] | None = None,
    face: Annotated[int, Field(ge=1)] | None = None,
    encoder: str | None = None,
    labels: list[str] | None = None,
    sources: list[str] | None = None,
    taken_from: date | None = None,
    taken_to: date | None = None,
    min_quality: Share = 0.0,
    not_photos: list[str] | None = None,
    not_itself: bool = False,
    min_cosine: Annotated[float, Field(ge=-1, le=1)] = -1.0,
    min_same_person: Share = 0.0,
    fold: bool = False,
    per_person: Annotated[int, Field(ge=1)] | None = None,
) -> dict[str, Any]:
    """Find the most similar known faces of each face in a photo.

    The answer is the run's result, as JSON; in Prefect's UI stand a table and a contact sheet of it.

    Args:
        image: What to ask with: a path, a url, s3://bucket/key, or a folder of photos. Empty where face_id is given.
        store: A folder or an s3:// prefix that holds a version.
        k: Matches a face.
        version: The version to ask; the current one when empty.
        pictures: Make the contact sheet, whose thumbnails of faces Prefect then keeps in its database.
        face_id: Ask with this face of the store instead of an image, as an answer names it.
        face: Answer only this face of the photo, counted from 1.
        encoder: Refuse a version that was not built with this encoder.
        labels: Search only faces of these people.
        sources: Search only photos under these folders or prefixes, or of these sources.
        taken_from: Search only photos of this day or later.
        taken_to: Search only photos of this day or earlier.
        min_quality: Search only known faces of at least this quality, 0 to 1.
        not_photos: Do not search these photos, by their uris.
        not_itself: Do not search the photo asked with, where the store knows it.
        min_cosine: Show only matches of at least this cosine, -1 to 1.
        min_same_person: Show only matches that are the same person at least so probably, 0 to 1; for calibrated versions.
        fold: Show near-duplicate photos as one match.
        per_person: Show at most so many matches of one labelled person.
    """
    options = QueryOptions(
        k=k,
        version=version,
        encoder=encoder,
        face=face,
        labels=tuple(labels or ()),
        sources=tuple(sources or ()),
        taken_from=taken_from,
        taken_to=taken_to,
        min_quality=min_quality,
        min_cosine=min_cosine,
        min_same_person=min_same_person,
        not_photos=tuple(not_photos or ()),
        not_itself=not_itself,
        fold=fold,
        per_person=per_person,
    )
    found = query_photo(image, store=store, face_id=face_id, options=options, pictures=pictures)
    create_table_artifact(found.rows, key="matches", description=f"matches of {found.asked}")
    if found.sheet is not None:
        create_markdown_artifact(found.sheet, key="contact-sheet", description=f"matches of {found.asked}")
    return found.answer
