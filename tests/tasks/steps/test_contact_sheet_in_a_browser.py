import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from tasks.steps.answer import Answer
from tasks.steps.contact_sheet import write_contact_sheet
from tasks.steps.query_photo import query_photo

CHROMIUM = "/usr/bin/chromium"
HOSTILE = "<script>document.title = 'run'</script>" + "w" * 3_000

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Debian's chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        yield driver.chromium.launch(executable_path=CHROMIUM, args=arguments)


@pytest.fixture(scope="module")
def sheet(built_store: tuple[Path, Any], drawn_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two answers by person, the second with names that are meant ill."""
    store = str(built_store[0])
    plain: Answer = query_photo(str(sorted(drawn_people.rglob("*.jpg"))[0]), store=store, k=6)
    matches = tuple(replace(match, label=HOSTILE, uri=f"/{HOSTILE}.jpg") for match in plain.faces[0].matches)
    hostile = replace(plain, image=f"/{HOSTILE}", faces=(replace(plain.faces[0], matches=matches),))
    file = tmp_path_factory.mktemp("sheet") / "sheet.html"
    write_contact_sheet([plain, hostile], store=store, html=file, by_person=True)
    return file


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (2000, "light")])
def test_nothing_stands_out_of_the_page_is_fetched_or_runs_at_any_width(
    browser: Any, sheet: Path, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(sheet.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == "lookalike: Who is it?"
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert (_sum(ink) > _sum(paper)) == (scheme == "dark")
    page.close()


def test_the_keyboard_opens_a_face_and_goes_on_to_the_next(browser: Any, sheet: Path) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.goto(sheet.as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.querySelector('summary')")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    first = page.locator("details dl").first
    assert not first.is_visible()
    page.keyboard.press("Enter")
    assert first.is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.querySelectorAll('summary')[1]")
    page.close()


def test_on_paper_it_is_white_and_no_picture_is_cut(browser: Any, sheet: Path, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 700, "height": 1000}, color_scheme="dark")
    page.goto(sheet.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert _sum(ink) < 3 * 100, "dark letters, whatever the screen was"
    kept = page.evaluate(
        "[...document.querySelectorAll('.matches li, .asked')].map(e => getComputedStyle(e).breakInside)"
    )
    assert set(kept) == {"avoid"}
    page.close()


def _sum(colour: str) -> int:
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
