"""A question as a run leaves it: the answer as JSON, a table of its matches, and a small contact sheet."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from store.errors import QueryError
from tasks.steps.answer import Answer
from tasks.steps.ask import AskedOf, ask_face, ask_folder, ask_photo, is_folder
from tasks.steps.contact_sheet import contact_sheet_markdown
from tasks.steps.query_options import QueryOptions

__all__ = ["MOST_ROWS", "QueryResult", "query_result"]

MOST_ROWS = 1_000
"""Of the table: Prefect keeps it in its database. The JSON has everything."""

_SHEET_BYTES = 180_000
_SMALLEST_SHEET = 12_000


@dataclass(frozen=True)
class QueryResult:
    """What a run shows and returns.

    Attributes:
        asked: what was asked with, for people.
        answer: an answer as JSON; of a folder `answers` and `refused`.
        rows: a row a match, at most MOST_ROWS.
        sheet: Markdown with thumbnails; None where no pictures are wanted, or nothing was answered.
        warnings: a sentence each.
    """

    asked: str
    answer: dict[str, Any]
    rows: list[dict[str, Any]]
    sheet: str | None
    warnings: tuple[str, ...]


def query_result(
    image: str | None, *, store: str, face_id: str | None = None, options: QueryOptions, pictures: bool
) -> QueryResult:
    """Ask with a photo, a folder of photos, or a known face.

    Args:
        image: as `ask_photo` and `ask_folder` take it.
        store: the store's uri.
        face_id: of a known face, instead of an image.
        options: how it is asked.
        pictures: make the contact sheet.

    Raises:
        QueryError: both or neither of image and face_id; and as `ask_photo`, `ask_face` and `ask_folder` have them.
    """
    if bool(image) == bool(face_id):
        raise QueryError("give either image or face_id: what is asked with is one photo, one folder or one known face")
    whole_folder = bool(image) and is_folder(str(image))
    answers, refused, rows = [], [], list[dict[str, Any]]()
    warnings: list[str] = []
    sheet = _Sheet(store) if pictures else None
    for one in _asked(image, face_id, store=store, options=options, whole_folder=whole_folder):
        if one.answer is None:
            refused.append({"image": one.image, "error": one.refusal})
            continue
        answers.append(one.answer.as_json())
        rows += [({"asked": one.image} if whole_folder else {}) | row for row in _rows(one.answer)]
        warnings += one.answer.warnings
        if sheet is not None:
            sheet.add(one.answer)
    answer = {"answers": answers, "refused": refused} if whole_folder else answers[0]
    asked = f"face {face_id}" if face_id else str(image)
    shown = sheet.text() if sheet is not None else None
    return QueryResult(asked, answer, rows[:MOST_ROWS], shown, tuple(dict.fromkeys(warnings)))


def _asked(
    image: str | None, face_id: str | None, *, store: str, options: QueryOptions, whole_folder: bool
) -> Iterator[AskedOf]:
    if face_id:
        answer = ask_face(face_id, store=store, options=options)
        yield AskedOf(answer.image, answer)
    elif whole_folder:
        yield from ask_folder(str(image), store=store, options=options)
    else:
        answer = ask_photo(str(image), store=store, options=options)
        yield AskedOf(answer.image, answer)


def _rows(answer: Answer) -> Iterator[dict[str, Any]]:
    for face in answer.faces:
        for match in face.matches:
            yield {
                "face": face.number,
                "same person": "" if match.same_person is None else f"{match.same_person:.1%}",
                "in words": match.grade,
                "cosine": match.cosine,
                "label": match.label or "",
                "photo": match.uri,
                "face_id": match.face_id,
            }


class _Sheet:
    """Contact sheets one under another, as long as there is room."""

    def __init__(self, store: str) -> None:
        self._store, self._parts, self._room, self._left_out = store, list[str](), _SHEET_BYTES, 0

    def add(self, answer: Answer) -> None:
        if self._room < _SMALLEST_SHEET:
            self._left_out += 1
            return
        self._parts.append(contact_sheet_markdown(answer, store=self._store, most_bytes=self._room))
        self._room -= len(self._parts[-1])

    def text(self) -> str | None:
        more = [f"{self._left_out} photos more are in the run's result.\n"] if self._left_out else []
        return "\n".join(self._parts + more) or None
