"""A contact sheet: each face asked about beside the faces it resembles, as a self-contained page and as a picture."""

import html as markup
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tasks.steps.answer import Answer, AskedFace, Match
from tasks.steps.pages import jpeg_url, render
from tasks.steps.read_crops import read_crops

__all__ = ["contact_sheet_markdown", "percent", "write_contact_sheet"]

_THUMB_PX = 168
_ARTIFACT_PX = 72
_MARKDOWN = frozenset("\\`*_{}[]()#+!|~<>")
_MARK = (11, 98, 196)


@dataclass(frozen=True)
class _Cell:
    """One face as it is shown; `right` is None where nobody knows who was asked about, `more` opens on demand."""

    picture: bytes
    name: str
    detail: str
    title: str
    right: bool | None = None
    percent: str | None = None
    share: float = 0.0
    grade: str | None = None
    face_id: str | None = None
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Group:
    """Matches under one heading; without one they are all of a face's matches."""

    heading: str | None
    cells: tuple[_Cell, ...]


@dataclass(frozen=True)
class _Row:
    asked: _Cell
    groups: tuple[_Group, ...]

    @property
    def matches(self) -> tuple[_Cell, ...]:
        return tuple(cell for group in self.groups for cell in group.cells)


@dataclass(frozen=True)
class _Section:
    """One photo asked with; `picture` shows its boxes where there is more than one face."""

    image: str
    about: str
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
    by_person: bool = False,
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
        by_person: matches of one labelled person stand together, those without a name last.
    """
    known = people or [None] * len(answers)
    sections = [
        _section(answer, store=store, person=person, by_person=by_person)
        for answer, person in zip(answers, known, strict=True)
    ]
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_bytes(render("contact_sheet.html.j2", title=title, lead=lead, sections=sections, url=jpeg_url))
    if png is not None:
        png.parent.mkdir(parents=True, exist_ok=True)
        _draw(sections, title=title, lead=lead).save(png, "PNG")


def contact_sheet_markdown(answer: Answer, *, store: str, most_bytes: int = 180_000) -> str:
    """An answer as Markdown with small thumbnails inside, for an artifact; further matches are left out where it grows too large.

    Every face stands there with its face_id, and the photo asked with by its uri in a comment: `forget` finds the artifact by them.

    Args:
        answer: to one photo.
        store: that answered.
        most_bytes: of the text; Prefect keeps artifacts in its database.
    """
    section = _section(answer, store=store, person=None, by_person=False)
    lines = [f"{_plain(section.image)}, {section.about}", "", f"<!-- {markup.escape(section.image)} -->", ""]
    size, left_out = sum(map(len, lines)), 0
    for n, row in enumerate(section.rows, start=1):
        known = f"face {row.asked.face_id}" if row.asked.face_id else f"face {n}"
        lines += [f"**{known}** {_markdown_picture(row.asked)}", "", "| | | | |", "|:-|:-|:-|:-|"]
        size += len(lines[-4])
        for cell in row.matches:
            words = ", ".join(_plain(word) for word in (cell.percent, cell.grade, f"cosine {cell.detail}") if word)
            line = f"| {_markdown_picture(cell)} | {_plain(cell.name)} | {words} | face {cell.face_id} |"
            size += len(line)
            if size > most_bytes:
                left_out += 1
            else:
                lines.append(line)
        lines.append("")
    if left_out:
        lines.append(f"{left_out} matches more are in the run's result.")
    return "\n".join(lines) + "\n"


def _markdown_picture(cell: _Cell) -> str:
    image = Image.open(io.BytesIO(cell.picture))
    image.thumbnail((_ARTIFACT_PX, _ARTIFACT_PX))
    return f"![]({jpeg_url(_jpeg(image, quality=70))})"


def _plain(text: str) -> str:
    """Text that no Markdown, table or HTML is read into."""
    return markup.escape(
        "".join(f"&#{ord(c)};" if c in _MARKDOWN else c for c in " ".join(text.split())), quote=False
    ).replace("&amp;#", "&#")


def _section(answer: Answer, *, store: str, person: str | None, by_person: bool) -> _Section:
    crops = read_crops(answer, store=store)
    rows = tuple(
        _Row(
            asked=_asked_cell(face, answer, person=person),
            groups=_groups([m for m in face.matches if m.face_id in crops], crops, person=person, by_person=by_person),
        )
        for face in answer.faces  # matches without a crop were forgotten since
    )
    boxed = _boxed(answer) if answer.picture and len(answer.faces) > 1 else None
    return _Section(image=answer.image, about=_about(answer), picture=boxed, rows=rows)


def _about(answer: Answer) -> str:
    said = f"answered by version {answer.version} from {answer.searched:,} faces"
    if answer.calibration is None:
        return f"{said}; uncalibrated: the number is a cosine, not a probability"
    return f"{said}; probabilities are off by {answer.calibration['ece']:.3f} on the mean, on people they were not fitted on"


def _groups(
    matches: Sequence[Match], crops: dict[str, bytes], *, person: str | None, by_person: bool
) -> tuple[_Group, ...]:
    cells = {match.face_id: _match_cell(match, crops[match.face_id], person=person) for match in matches}
    if not by_person:
        return (_Group(None, tuple(cells.values())),)
    of_label: dict[str | None, list[_Cell]] = {}
    for match in sorted(matches, key=lambda m: not m.label):  # stable: by falling cosine within
        of_label.setdefault(match.label or None, []).append(cells[match.face_id])
    return tuple(
        _Group((label or "without a name") + (f", {len(some)} faces" if len(some) > 1 else ""), tuple(some))
        for label, some in of_label.items()
    )


def _asked_cell(face: AskedFace, answer: Answer, *, person: str | None) -> _Cell:
    name = person or (f"face {face.number}" if len(answer.faces) > 1 else os.path.basename(answer.image))
    return _Cell(
        picture=_thumbnail(face.crop, face.rotation),
        name=name,
        detail="asked",
        title=answer.image,
        face_id=answer.face_id,
    )


def _match_cell(match: Match, crop: bytes, *, person: str | None) -> _Cell:
    more = f" and {len(match.uris) - 1} more" if len(match.uris) > 1 else ""
    right = None if person is None or match.label is None else match.label == person
    return _Cell(
        picture=_thumbnail(crop, match.rotation),
        name=match.label or os.path.basename(match.uri),
        detail=f"{match.cosine:.3f}",
        title=match.uri + more,
        right=right,
        percent=None if match.same_person is None else percent(match.same_person),
        share=match.same_person or 0.0,
        grade=match.grade if match.same_person is not None and right is None else None,
        face_id=match.face_id,
        more=tuple(_more(match)),
    )


def _more(match: Match) -> Iterator[tuple[str, str]]:
    for n, uri in enumerate(match.uris):
        yield "photo" if n == 0 else "also named", uri
    for uri in match.folded:
        yield "nearly the same photo", uri
    yield "face", match.face_id
    if match.false_hits is not None:
        yield "strangers expected to score so high", f"{match.false_hits:.2g}"
    if match.quality is not None:
        yield "quality", f"{match.quality:.2f}"


def percent(share: float) -> str:
    """A probability for people: nothing is ever certain."""
    return "> 99 %" if share > 0.99 else "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


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
    for face in answer.faces:
        x1, y1, x2, y2 = (side * scale for side in face.box)
        draw.rectangle((x1, y1, x2, y2), outline=_MARK, width=3)
        draw.rectangle((x1, y1, x1 + 22, y1 + 22), fill=_MARK)
        draw.text((x1 + 11, y1 + 11), str(face.number), fill="white", font=font, anchor="mm")
    return _jpeg(image)


def _jpeg(image: Image.Image, *, quality: int = 85) -> bytes:
    sink = io.BytesIO()
    image.convert("RGB").save(sink, "JPEG", quality=quality)
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
    detail = cell.detail if cell.percent is None else f"{cell.percent}   {cell.detail}"
    draw.text((x, y + _CELL_W + 7), detail, fill=_SOFT, font=font)
