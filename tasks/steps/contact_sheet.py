"""A contact sheet: each face asked about beside the faces it resembles, as a self-contained page and as a picture."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tasks.steps.answer import Answer, AskedFace, Match
from tasks.steps.pages import jpeg_url, render
from tasks.steps.read_crops import read_crops

__all__ = ["write_contact_sheet"]

_THUMB_PX = 168
_MARK = (11, 98, 196)


@dataclass(frozen=True)
class _Cell:
    """One face as it is shown; `right` is None where nobody knows who was asked about."""

    picture: bytes
    name: str
    detail: str
    title: str
    right: bool | None = None


@dataclass(frozen=True)
class _Row:
    asked: _Cell
    matches: tuple[_Cell, ...]


@dataclass(frozen=True)
class _Section:
    """One photo asked with; `picture` shows its boxes where there is more than one face."""

    image: str
    version: int
    picture: bytes | None
    rows: tuple[_Row, ...]


def write_contact_sheet(
    answers: Sequence[Answer],
    *,
    store: str,
    html: Path | None = None,
    png: Path | None = None,
    title: str = "Who is it?",
    lead: str = "",
    people: Sequence[str | None] | None = None,
) -> None:
    """Write what a version answered, thumbnails inside.

    Args:
        answers: to one photo each.
        store: that answered; crops are read from it.
        html: where the page goes, if anywhere.
        png: where a picture of it goes, if anywhere.
        title: of the sheet.
        lead: a sentence or two under the title.
        people: who each answer's photo shows, where that is known; matches are then marked right or wrong.
    """
    known = people or [None] * len(answers)
    sections = [_section(answer, store=store, person=person) for answer, person in zip(answers, known, strict=True)]
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_bytes(render("contact_sheet.html.j2", title=title, lead=lead, sections=sections, url=jpeg_url))
    if png is not None:
        png.parent.mkdir(parents=True, exist_ok=True)
        _draw(sections, title=title, lead=lead).save(png, "PNG")


def _section(answer: Answer, *, store: str, person: str | None) -> _Section:
    crops = read_crops(answer, store=store)
    rows = tuple(
        _Row(
            asked=_asked_cell(face, answer, n=n, person=person),
            matches=tuple(
                _match_cell(match, crops[match.face_id], person=person)
                for match in face.matches
                if match.face_id in crops  # others were forgotten since
            ),
        )
        for n, face in enumerate(answer.faces, start=1)
    )
    boxed = _boxed(answer) if len(answer.faces) > 1 else None
    return _Section(image=answer.image, version=answer.version, picture=boxed, rows=rows)


def _asked_cell(face: AskedFace, answer: Answer, *, n: int, person: str | None) -> _Cell:
    name = person or (f"face {n}" if len(answer.faces) > 1 else os.path.basename(answer.image))
    return _Cell(picture=_thumbnail(face.crop, face.rotation), name=name, detail="asked", title=answer.image)


def _match_cell(match: Match, crop: bytes, *, person: str | None) -> _Cell:
    more = f" and {len(match.uris) - 1} more" if len(match.uris) > 1 else ""
    return _Cell(
        picture=_thumbnail(crop, match.rotation),
        name=match.label or os.path.basename(match.uri),
        detail=f"{match.cosine:.3f}",
        title=match.uri + more,
        right=None if person is None or match.label is None else match.label == person,
    )


def _thumbnail(crop: bytes, rotation: int) -> bytes:
    """The middle of a crop, turned so that its face is upright."""
    with Image.open(io.BytesIO(crop)) as image:
        side = image.width
        middle = image.crop((side // 8, side // 8, side - side // 8, side - side // 8))
    middle.thumbnail((_THUMB_PX, _THUMB_PX))
    return _jpeg(middle.rotate(rotation, expand=True))


def _boxed(answer: Answer) -> bytes:
    image = Image.open(io.BytesIO(answer.picture)).convert("RGB")
    scale = image.width / answer.size[0]
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(16)
    for n, face in enumerate(answer.faces, start=1):
        x1, y1, x2, y2 = (side * scale for side in face.box)
        draw.rectangle((x1, y1, x2, y2), outline=_MARK, width=3)
        draw.rectangle((x1, y1, x1 + 22, y1 + 22), fill=_MARK)
        draw.text((x1 + 11, y1 + 11), str(n), fill="white", font=font, anchor="mm")
    return _jpeg(image)


def _jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.convert("RGB").save(sink, "JPEG", quality=85)
    return sink.getvalue()


_NAME_CHARS = 64  # more than fit
_CELL_W, _CELL_H, _LEFT, _TOP = 150, 192, 24, 96
_INK, _SOFT, _PAPER, _SAME, _OTHER = "#1b1f24", "#5d6670", "#f6f7f9", "#1a7f4b", "#a4262c"


def _draw(sections: Sequence[_Section], *, title: str, lead: str) -> Image.Image:
    rows = [row for section in sections for row in section.rows]
    columns = 1 + max((len(row.matches) for row in rows), default=0)
    size = (2 * _LEFT + columns * _CELL_W + 24, _TOP + len(rows) * _CELL_H + 16)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_LEFT, 20), title, fill=_INK, font=ImageFont.load_default(26))
    draw.text((_LEFT, 60), lead, fill=_SOFT, font=ImageFont.load_default(15))
    for n, row in enumerate(rows):
        y = _TOP + n * _CELL_H
        for column, cell in enumerate((row.asked, *row.matches)):
            x = _LEFT + column * _CELL_W + (24 if column else 0)
            _draw_cell(sheet, draw, cell, x=x, y=y)
        draw.line((_LEFT + _CELL_W + 6, y, _LEFT + _CELL_W + 6, y + _CELL_H - 20), fill="#c9d0d8", width=2)
    return sheet


def _draw_cell(sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: _Cell, *, x: int, y: int) -> None:
    image = Image.open(io.BytesIO(cell.picture)).convert("RGB").resize((_CELL_W - 14, _CELL_W - 14))
    sheet.paste(image, (x, y))
    colour = {None: _INK, True: _SAME, False: _OTHER}[cell.right]
    if cell.right is not None:
        draw.rectangle((x, y, x + _CELL_W - 15, y + _CELL_W - 15), outline=colour, width=4)
    font = ImageFont.load_default(13)
    name = " ".join(cell.name.split())[:_NAME_CHARS]
    while draw.textlength(name, font=font) > _CELL_W - 14 and len(name) > 4:
        name = name[:-2] + "…"
    draw.text((x, y + _CELL_W - 10), name, fill=colour, font=font)
    draw.text((x, y + _CELL_W + 7), cell.detail, fill=_SOFT, font=font)
