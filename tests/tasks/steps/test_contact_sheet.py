import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.portraits import draw_group, draw_person
from tasks.steps.answer import Answer
from tasks.steps.contact_sheet import contact_sheet_markdown, percent, write_contact_sheet
from tasks.steps.query_photo import query_photo

HOSTILE = "<script>alert('1')</script>\"onload=\"x\n" + "w" * 5000


@pytest.fixture(scope="module")
def store(built_store: tuple[Path, Any]) -> str:
    return str(built_store[0])


@pytest.fixture(scope="module")
def answer(store: str, drawn_people: Path) -> Answer:
    return query_photo(str(sorted(drawn_people.rglob("*.jpg"))[0]), store=store, k=4)


def picture(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def hostile(answer: Answer) -> Answer:
    face = answer.faces[0]
    matches = tuple(replace(m, label=HOSTILE, uri='/p/<b>&".jpg') for m in face.matches)
    return replace(answer, image="/q/<img src=x>.jpg", faces=(replace(face, matches=matches),))


def test_the_page_shows_every_face_with_its_cosine_and_pictures_inside(
    store: str, answer: Answer, tmp_path: Path
) -> None:
    write_contact_sheet([answer], store=store, html=tmp_path / "new" / "sheet.html")
    text = (tmp_path / "new" / "sheet.html").read_text()
    for match in answer.faces[0].matches:
        assert f"<span>cosine {match.cosine:.3f}</span>" in text
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 1 + len(answer.faces[0].matches)
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?https?:", text)


def test_hostile_names_and_labels_are_escaped(store: str, answer: Answer, tmp_path: Path) -> None:
    bad = hostile(answer)
    write_contact_sheet([bad], store=store, html=tmp_path / "a.html", title=HOSTILE, lead=HOSTILE, people=[HOSTILE])
    text = (tmp_path / "a.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#39;1&#39;)" in text
    assert "<img src=x>" not in text
    assert '"onload=' not in text
    assert "/p/&lt;b&gt;&amp;&#34;.jpg" in text


@pytest.mark.timeout(60)
def test_hostile_names_do_not_break_the_picture(store: str, answer: Answer, tmp_path: Path) -> None:
    write_contact_sheet([hostile(answer)], store=store, png=tmp_path / "a.png", people=[HOSTILE])
    assert picture(tmp_path / "a.png").format == "PNG"


def test_the_picture_has_a_row_a_face_and_a_column_a_match(store: str, answer: Answer, tmp_path: Path) -> None:
    write_contact_sheet([answer], store=store, png=tmp_path / "one.png")
    write_contact_sheet([answer] * 3, store=store, png=tmp_path / "three.png")
    few = replace(answer, faces=(replace(answer.faces[0], matches=answer.faces[0].matches[:2]),))
    write_contact_sheet([few], store=store, png=tmp_path / "few.png")
    one, three, narrow = (picture(tmp_path / f"{name}.png").size for name in ("one", "three", "few"))
    assert three[1] - one[1] == 2 * 192
    assert one[0] - narrow[0] == 2 * 150
    assert one[0] == three[0]


def test_matches_are_marked_right_or_wrong_only_where_the_person_is_known(
    store: str, answer: Answer, tmp_path: Path
) -> None:
    labels = [m.label for m in answer.faces[0].matches]
    person = labels[0]
    write_contact_sheet([answer], store=store, html=tmp_path / "known.html", people=[person])
    write_contact_sheet([answer], store=store, html=tmp_path / "unknown.html")
    known, unknown = ((tmp_path / f"{n}.html").read_text() for n in ("known", "unknown"))
    assert known.count("same person") == labels.count(person) >= 1
    assert known.count("other person") == len(labels) - labels.count(person)
    assert "same person" not in unknown
    assert "other person" not in unknown


def test_a_group_picture_is_shown_whole_with_its_faces_numbered(store: str, tmp_path: Path) -> None:
    people = [draw_person(n) for n in (31, 32)]
    Image.fromarray(draw_group(people, view_seed=4, size_px=(480, 320))).save(tmp_path / "group.png")
    answer = query_photo(str(tmp_path / "group.png"), store=store, k=1)
    write_contact_sheet([answer], store=store, html=tmp_path / "a.html", png=tmp_path / "a.png")
    text = (tmp_path / "a.html").read_text()
    assert len(answer.faces) == 2
    assert text.count('class="whole"') == 1
    assert "<b>face 1</b>" in text
    assert "<b>face 2</b>" in text


def test_a_face_without_matches_and_no_answer_at_all_are_sheets_too(store: str, answer: Answer, tmp_path: Path) -> None:
    lonely = replace(answer, faces=(replace(answer.faces[0], matches=()),))
    write_contact_sheet([lonely], store=store, html=tmp_path / "a.html", png=tmp_path / "a.png")
    write_contact_sheet([], store=store, html=tmp_path / "b.html", png=tmp_path / "b.png")
    assert picture(tmp_path / "b.png").format == "PNG"
    assert "<li" not in (tmp_path / "a.html").read_text()


def test_as_markdown_names_are_text_only_and_the_size_is_held(store: str, answer: Answer) -> None:
    text = contact_sheet_markdown(hostile(answer), store=store)
    assert "<script" not in text
    assert "](javascript" not in text
    assert text.count("](data:image/jpeg;base64,") == 1 + len(answer.faces[0].matches)
    short = contact_sheet_markdown(answer, store=store, most_bytes=100)
    assert f"{len(answer.faces[0].matches)} matches more are in the run's result." in short


def test_matches_of_a_person_stand_together_under_the_name(store: str, answer: Answer, tmp_path: Path) -> None:
    write_contact_sheet([answer], store=store, html=tmp_path / "a.html", by_person=True)
    headings = re.findall(r"<h3>(.*?)</h3>", (tmp_path / "a.html").read_text().replace("<wbr>", ""))
    labels = list(dict.fromkeys(m.label for m in answer.faces[0].matches))
    assert [heading.split(",")[0] for heading in headings] == labels


def test_nothing_is_ever_shown_as_certain() -> None:
    assert [percent(p) for p in (1.0, 0.987, 0.5, 0.004, 0.0)] == ["> 99 %", "99 %", "50 %", "< 1 %", "< 1 %"]
