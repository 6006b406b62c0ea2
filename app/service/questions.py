"""What a query may say, as JSON or as the fields of a form."""

from datetime import date
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.service.refusals import Refusal
from store.errors import QueryError
from tasks.steps.open_version import OpenVersion
from tasks.steps.query_options import QueryOptions

__all__ = ["SearchOptions", "SearchQuestion", "parse_fields", "parse_question"]

_LISTS = ("labels", "sources", "not_photos_of")


class SearchOptions(BaseModel):
    """How a version is asked; filters restrict what is searched."""

    model_config = ConfigDict(extra="forbid")

    k: int = Field(default=24, ge=1, le=200, description="matches a face")
    version: int | None = Field(
        default=None, ge=1, le=999_999, description="the version to ask; the current one when empty"
    )
    face: int | None = Field(
        default=None, ge=1, le=10_000, description="answer this face of the photo only, counted from 1"
    )
    labels: list[Annotated[str, Field(max_length=1000)]] = Field(
        default=[], max_length=50, description="only faces of these people"
    )
    sources: list[Annotated[int, Field(ge=0, le=9999)]] = Field(
        default=[], max_length=50, description="only photos of these sources, by their place in the version's list"
    )
    taken_from: date | None = Field(default=None, description="only photos of this day or later")
    taken_to: date | None = Field(default=None, description="only photos of this day or earlier")
    min_quality: float = Field(default=0.0, ge=0, le=1, description="least quality of a known face")
    min_cosine: float = Field(default=-1.0, ge=-1, le=1, description="matches below it are left out")
    min_same_person: float = Field(
        default=0.0, ge=0, le=1, description="likewise; refused where the version is not calibrated"
    )
    not_itself: bool = Field(default=False, description="leave out the photo asked with")
    not_photos_of: list[Annotated[str, Field(pattern=r"^[0-9]{1,19}$")]] = Field(
        default=[], max_length=200, description="leave out the photos that these faces are in"
    )
    fold: bool = Field(default=False, description="show near-duplicate photos as one")
    per_person: int | None = Field(
        default=None, ge=1, le=1000, description="at most so many matches of one named person"
    )
    picture: bool = Field(default=False, description="send the upright photo back, small")

    def for_version(self, opened: OpenVersion) -> QueryOptions:
        """The options as steps take them.

        Raises:
            QueryError: an option does not fit the version.
        """
        sources = opened.version.manifest.sources
        if unknown := [number for number in self.sources if number >= len(sources)]:
            raise QueryError(f"version {opened.version.number} has {len(sources)} sources, there is no {unknown[0]}")
        known = [opened.faces.get(int(face_id)) for face_id in self.not_photos_of]
        return QueryOptions(
            k=self.k,
            version=self.version,
            face=self.face,
            labels=tuple(self.labels),
            sources=tuple(sources[number] for number in self.sources),
            taken_from=self.taken_from,
            taken_to=self.taken_to,
            min_quality=self.min_quality,
            min_cosine=self.min_cosine,
            min_same_person=self.min_same_person,
            not_photos=tuple(str(row["uri"]) for row in known if row is not None),
            not_itself=self.not_itself,
            fold=self.fold,
            per_person=self.per_person,
        )


class SearchQuestion(SearchOptions):
    """A query without a file: about a face that the gallery knows, or a photo at a public https address."""

    face_id: str | None = Field(default=None, pattern=r"^[0-9]{1,19}$", description="a face of the version")
    url: str | None = Field(
        default=None, max_length=2000, description="https only, and only where the service allows it"
    )


def parse_question(body: bytes) -> SearchQuestion:
    """The question in a JSON body.

    Raises:
        Refusal: 422, with the first problem.
    """
    try:
        question = SearchQuestion.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error) from error
    if (question.face_id is None) == (question.url is None):
        raise Refusal(422, "ask with a photo in a form, or name either face_id or url")
    return question


def parse_fields(fields: dict[str, list[str]]) -> SearchOptions:
    """The options in a form's fields; a field that may be given several times is a list.

    Raises:
        Refusal: 422, with the first problem.
    """
    values: dict[str, Any] = {}
    for name, given in fields.items():
        if name in _LISTS:
            values[name] = given
        elif len(given) != 1:
            raise Refusal(422, f"{name[:40]} is given {len(given)} times")
        elif given[0] != "":
            values[name] = given[0]
    try:
        return SearchOptions.model_validate(values)
    except ValidationError as error:
        raise _refused(error) from error


def _refused(error: ValidationError) -> Refusal:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:80]
    return Refusal(422, f"{where}: {first['msg']}" if where else first["msg"])
