"""The page as people use it, in real Chromium."""

import base64
import io
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from app.service.settings import ServiceSettings

READ = "read-token-" + "r" * 40
FIRST = "#matches li:first-child"


def ask(page: Any, photo: Any) -> None:
    page.set_input_files("#photo", photo if isinstance(photo, dict) else str(photo))
    page.locator(FIRST).first.wait_for()


def as_file(image: Image.Image) -> dict[str, Any]:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return {"name": "some.png", "mimeType": "image/png", "buffer": sink.getvalue()}


def group(*files: Any) -> dict[str, Any]:
    """Several photos side by side."""
    photos = [Image.open(file) for file in files]
    wide = Image.new("RGB", (sum(p.width for p in photos), photos[0].height))
    for n, photo in enumerate(photos):
        wide.paste(photo, (n * photo.width, 0))
    return as_file(wide)


def slide(page: Any, least: float) -> None:
    page.locator("#least").evaluate(
        "(slider, value) => { slider.value = value; for (const kind of ['input', 'change']) slider.dispatchEvent(new Event(kind)); }",
        str(least),
    )


def test_a_photo_is_picked_its_face_boxed_a_match_looked_at_and_asked_about_in_turn(
    service: Any, gallery: Any, open_page: Any
) -> None:
    photo = gallery.files()[0]
    page = open_page(service.url, width=360, has_touch=True, is_mobile=True)
    page.locator("#guide").wait_for()
    assert page.locator("#camera").get_attribute("capture") == "user"
    assert page.locator("#camera-button").is_visible()
    ask(page, photo)
    assert page.locator("#stage button.box").count() == 1
    assert page.locator(f"{FIRST} .name").text_content() == photo.parent.name
    assert page.locator(f"{FIRST} .itself").count() == 1
    assert "uncalibrated" in page.locator(FIRST).inner_text()
    assert "jpg" not in page.url
    assert "face=" not in page.url
    page.locator("#matches li:nth-child(2) .thumb").tap()
    page.locator("#shown .box").wait_for()
    assert page.locator("#shown-facts dd").first.text_content() == "uncalibrated: the score is all there is"
    second = page.locator("#matches li:nth-child(2) .name").text_content()
    assert page.locator("#shown-name").text_content() == second
    page.locator("#shown-find").tap()
    page.locator(".caption").wait_for()
    assert page.locator(".caption").text_content() == second
    assert "#face=" in page.url
    assert page.evaluate("() => document.activeElement.id") == "found"
    assert page.evaluate("() => document.documentElement.scrollWidth") == 360
    page.go_back()
    page.locator("#stage button.box").wait_for()
    page.locator(f"{FIRST} .itself").wait_for()


def test_the_least_score_and_the_filters_narrow_what_is_shown_and_a_link_shows_the_same(
    service: Any, gallery: Any, open_page: Any
) -> None:
    page = open_page(service.url, allowed="422")
    ask(page, gallery.files()[0])
    slide(page, 1)
    assert page.locator("#matches li:visible").count() <= 1  # itself, unless rounding has it below 1
    page.locator("#nothing-do").click() if page.locator("#nothing-do").is_visible() else slide(page, -1)
    page.locator("#matches li:nth-child(24)").wait_for()
    page.locator("#filters summary").click()
    label = gallery.files()[4].parent.name
    page.locator("#label").fill(label)
    page.keyboard.press("Enter")
    page.locator("#said", has_text="3 matches among 3 faces").wait_for()
    assert set(page.locator("#matches .name").all_text_contents()) == {label}
    assert page.locator("#filtered").text_content() == "1 on"
    kept = page.locator("#matches small bdi").all_text_contents()
    slide(page, -0.99)
    link = page.locator("#link").get_attribute("href")
    other = open_page(f"{service.url}/{link}")
    other.locator("#said", has_text="3 matches among 3 faces").wait_for()
    assert other.locator("#matches small bdi").all_text_contents() == kept
    page.locator("#others").check()
    page.locator("#chosen-labels button").click()
    page.locator("#said", has_text="of version 1").wait_for()
    page.locator("#matches li:nth-child(20)").wait_for()
    assert page.locator(".itself").count() == 0
    page.locator("#from").fill("2999-01-01")
    page.locator("#nothing-said", has_text="No known face passes the least score of -0.99 and 2 filters.").wait_for()
    page.locator("#nothing-do").click()
    page.locator(f"{FIRST} .itself").wait_for()
    page.locator("#label").fill("nobody")
    page.keyboard.press("Enter")
    page.locator("#nothing-said", has_text="Nobody in version 1 is called nobody").wait_for()
    page.locator("#nothing-do", has_text="Clear all filters").click()
    page.locator(FIRST).first.wait_for()


@pytest.mark.parametrize("width", [360, 2000])
def test_matches_are_grouped_by_person_and_the_link_keeps_it(
    service: Any, gallery: Any, open_page: Any, width: int
) -> None:
    photo = gallery.files()[0]
    page = open_page(service.url, width=width)
    ask(page, photo)
    flat = page.locator("#matches .name").all_text_contents()
    page.locator("#group").check()
    page.locator("#matches section").first.wait_for()
    assert "group=1" in page.url
    headings = page.locator("#matches section h3 bdi").all_text_contents()
    assert headings == list(dict.fromkeys(flat))  # the person of the best match first, each once
    assert page.locator("#matches .name").count() == len(flat)
    for section, label in zip(page.locator("#matches section").all(), headings, strict=True):
        assert set(section.locator(".name").all_text_contents()) == {label}
        assert section.locator("h3 small").text_content() == f"{flat.count(label)} face{'s' * (flat.count(label) != 1)}"
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    slide(page, 0.999)
    assert page.locator("#matches section:visible").count() <= 1  # a person with no face left is not named
    page.locator("#group").uncheck()
    slide(page, -1)
    assert page.locator("#matches .name").all_text_contents() == flat


def test_a_version_and_a_source_are_chosen_and_a_version_that_is_not_there_says_so(
    gallery: Any, own_gallery: Any, serving: Any, open_page: Any, tmp_path: Path
) -> None:
    more = replace(own_gallery, photos=tmp_path / "more")
    for folder in {file.parent for file in gallery.files()[9:15]}:
        shutil.copytree(folder, more.photos / folder.name)
    assert more.build() == 2
    with serving(ServiceSettings(store=own_gallery.store, audit=os.devnull)) as running:
        page = open_page(running.url, allowed="Failed to load resource")
        ask(page, own_gallery.files()[0])
        page.locator("#said", has_text="15 faces of version 2").wait_for()
        page.locator("#filters summary").click()
        page.locator("#source").select_option(label="more")
        page.locator("#said", has_text="6 matches among 6 faces of version 2").wait_for()
        page.locator("#clear").click()
        page.locator("#version").select_option("1")
        page.locator("#said", has_text="9 faces of version 1").wait_for()
        assert page.url.endswith("#version=1")
        assert not page.locator("#source").is_visible()
        page.goto(f"{running.url}/#version=7&face=1")
        page.locator("#nothing-said", has_text="7").wait_for()
        page.locator("#nothing-do", has_text="Ask the current version").click()
        page.locator("#nothing-said", has_text="has no face 1").wait_for()


def test_each_face_of_a_group_photo_is_answered_on_its_own(service: Any, gallery: Any, open_page: Any) -> None:
    files = gallery.files()[0], gallery.files()[3]
    page = open_page(service.url)
    ask(page, group(*files))
    boxes = page.locator("#stage button.box")
    assert boxes.count() == 2
    left = min(range(2), key=lambda n: boxes.nth(n).bounding_box()["x"])
    for n, file in ((left, files[0]), (1 - left, files[1])):
        boxes.nth(n).click()
        assert page.locator(f"{FIRST} .name").text_content() == file.parent.name
        assert f"Face {n + 1} of 2" in page.locator("#said").inner_text()
        assert [box.get_attribute("aria-pressed") for box in boxes.all()] == [str(m == n).lower() for m in range(2)]


GIVE = """([kind, jpeg]) => {
    const given = new DataTransfer();
    given.items.add(new File([Uint8Array.from(atob(jpeg), (c) => c.charCodeAt(0))], "x.jpg", { type: "image/jpeg" }));
    document.body.dispatchEvent(kind === "drop" ? new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: given, bubbles: true }));
}"""


def test_a_photo_is_dropped_or_pasted(service: Any, gallery: Any, open_page: Any) -> None:
    page = open_page(service.url)
    for kind, photo in zip(("drop", "paste"), gallery.files()[::3], strict=False):
        page.evaluate(GIVE, [kind, base64.b64encode(photo.read_bytes()).decode()])
        page.locator(f"{FIRST} .name", has_text=photo.parent.name).wait_for()


def test_troubles_are_told_in_a_sentence_and_can_be_tried_again(
    service: Any, gallery: Any, open_page: Any, tmp_path: Path
) -> None:
    page = open_page(service.url, allowed="Failed to load resource")
    page.set_input_files("#photo", {"name": "no.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"})
    page.locator("#nothing-said", has_text="The photo cannot be asked with").wait_for()
    page.set_input_files("#photo", as_file(Image.new("RGB", (320, 240))))
    page.locator("#nothing-said", has_text="No face was found in the photo").wait_for()
    with (tmp_path / "large.jpg").open("wb") as large:
        large.truncate(65 * 2**20)
    page.set_input_files("#photo", large.name)
    page.locator("#nothing-said", has_text="The photo has 65 MiB, the service takes 63.").wait_for()
    page.route("**/api/search", lambda route: route.abort())
    page.set_input_files("#photo", str(gallery.files()[0]))
    page.locator("#nothing-said", has_text="The service does not answer. Is it still running?").wait_for()
    page.unroute("**/api/search")
    page.locator("#nothing-do", has_text="Try again").click()
    page.locator(FIRST).first.wait_for()
    page.locator("#anew").click()
    page.locator("#guide").wait_for()
    assert page.locator("#matches li").count() == 0


def test_whoever_has_no_token_sees_nothing_and_signs_in_and_out(
    gallery: Any, serving: Any, open_page: Any, tmp_path: Any
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"read {READ} ann\n")
    tokens.chmod(0o600)
    with serving(ServiceSettings(store=gallery.store, audit=os.devnull, tokens=str(tokens))) as running:
        page = open_page(running.url, allowed="401")
        page.locator("#token").fill("x" * 40)
        page.keyboard.press("Enter")
        page.locator("#refused", has_text="does not know this token").wait_for()
        assert clean(page) == []
        page.locator("#token").fill(READ)
        page.keyboard.press("Enter")
        page.locator("#leave", has_text="Sign out ann").wait_for()
        ask(page, gallery.files()[0])
        page.wait_for_function("() => document.querySelector('.thumb img').naturalWidth > 0")
        assert READ not in page.content()
        page.locator("#leave").click()
        page.locator("#door").wait_for()
        assert page.locator("#matches li, #stage img").count() == 0
        assert page.context.cookies() == []


def clean(page: Any) -> list[str]:
    """What axe finds wrong."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1200, "light")])
def test_axe_finds_nothing_wrong_in_any_state(
    service: Any, gallery: Any, open_page: Any, width: int, scheme: str
) -> None:
    page = open_page(service.url, width=width, color_scheme=scheme, allowed="422")
    page.locator("#guide").wait_for()
    assert clean(page) == []
    ask(page, group(gallery.files()[0], gallery.files()[3]))
    page.locator("#filters summary").click()
    page.locator("#label").fill(gallery.files()[4].parent.name)
    page.keyboard.press("Enter")
    page.locator("#said", has_text="3 matches").wait_for()
    assert clean(page) == []
    page.locator(f"{FIRST} .thumb").click()
    page.locator("#shown .box").wait_for()
    assert clean(page) == []
    page.locator("#shown-find").click()
    page.locator(".caption").wait_for()
    assert clean(page) == []
    page.set_input_files("#photo", as_file(Image.new("RGB", (320, 240))))
    page.locator("#nothing").wait_for()
    assert clean(page) == []


def test_all_can_be_done_with_the_keyboard_alone(service: Any, gallery: Any, open_page: Any) -> None:
    page = open_page(service.url)
    ask(page, gallery.files()[0])

    def focused() -> str:
        return str(page.evaluate("() => document.activeElement.id || document.activeElement.className"))

    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert focused() == "skip"
    page.keyboard.press("Enter")
    assert focused() == "found"
    while focused() != "thumb":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#shown .box").wait_for()
    page.keyboard.press("ArrowRight")
    second = page.locator("#matches li:nth-child(2) .name").text_content()
    page.locator("#shown-name", has_text=second).wait_for()
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.activeElement === document.querySelector('#matches li:nth-child(2) .thumb')")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # find this one
    page.locator(".caption", has_text=second).wait_for()


def focused(page: Any) -> str:
    """What the keyboard speaks to: its id, else its class, and its words where it has neither."""
    return str(
        page.evaluate("() => { const at = document.activeElement; return at.id || at.className || at.textContent; }")
    )


def test_persons_are_gone_through_with_the_keyboard_in_the_order_that_is_seen(
    service: Any, gallery: Any, open_page: Any
) -> None:
    page = open_page(service.url)
    ask(page, gallery.files()[0])
    page.locator("#group").focus()
    page.keyboard.press("Space")
    page.locator("#matches section").first.wait_for()
    assert focused(page) == "group"
    names = page.locator("#matches .name").all_text_contents()
    of_first = page.locator("#matches section:first-child li").count()
    while focused(page) != "thumb":
        page.keyboard.press("Tab")
    order = []
    for _ in range(of_first + 2):  # into the second person's
        order.append(page.evaluate("() => document.activeElement.closest('li').querySelector('.name').textContent"))
        page.keyboard.press("Tab")
        assert focused(page) == "Find this one"
        page.keyboard.press("Tab")
        assert focused(page) == "thumb"
    assert order == names[: of_first + 2]
    for _ in range(4):
        page.keyboard.press("Shift+Tab")  # back to the second person's first
    page.keyboard.press("Enter")
    page.locator("#shown .box").wait_for()
    assert page.locator("#shown-name").text_content() == names[of_first]
    page.keyboard.press("ArrowLeft")  # over the border between two people
    page.locator("#shown-facts dt").first.wait_for()
    assert page.locator("#shown-name").text_content() == names[of_first - 1]
    page.keyboard.press("Escape")
    page.locator("#shown").wait_for(state="hidden")
    assert page.evaluate(
        "(n) => document.activeElement === document.querySelectorAll('#matches .thumb')[n]", of_first - 1
    )
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # find this one
    page.locator(".caption", has_text=names[of_first - 1]).wait_for()
    assert focused(page) == "found"
    assert "group=1" in page.url
    assert page.locator("#matches section").count() > 1


@pytest.mark.parametrize("grouped", [False, True])
def test_more_matches_leave_the_keyboard_where_it_was_or_at_the_matches(
    service: Any, gallery: Any, open_page: Any, grouped: bool
) -> None:
    page = open_page(f"{service.url}/#group=1" if grouped else service.url)
    ask(page, gallery.files()[0])
    seen = page.locator("#matches li").count()
    while page.locator("#more").is_visible():
        page.locator("#more").focus()
        page.keyboard.press("Enter")
        page.wait_for_function("(n) => document.querySelectorAll('#matches li').length > n", arg=seen)
        seen = page.locator("#matches li").count()
        assert focused(page) == ("more" if page.locator("#more").is_visible() else "found")
    assert seen == int(page.evaluate("() => document.getElementById('said').textContent.match(/among (\\d+)/)[1]"))


WATCH_JUMPS = """() => { window.jumps = 0; new PerformanceObserver((list) => list.getEntries().forEach((one) => { window.jumps += one.value; }))
    .observe({type: 'layout-shift', buffered: true}); }"""


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_jumps_where_matches_come_by_person(service: Any, gallery: Any, open_page: Any, width: int) -> None:
    page = open_page(f"{service.url}/#group=1", width=width)
    page.evaluate(WATCH_JUMPS)
    ask(page, gallery.files()[0])
    page.locator("#matches section").first.wait_for()
    page.evaluate("() => document.querySelectorAll('.thumb img').forEach((one) => { one.loading = 'eager'; })")
    page.wait_for_function("() => [...document.querySelectorAll('.thumb img')].every((one) => one.naturalWidth > 0)")
    jumps = page.evaluate("() => window.jumps")  # those after a click or a key too, which Core Web Vitals leave out
    assert jumps < 0.05


def test_the_photo_comes_up_when_the_mouse_rests_and_nothing_jumps(service: Any, gallery: Any, open_page: Any) -> None:
    page = open_page(service.url)
    page.evaluate(WATCH_JUMPS)
    ask(page, gallery.files()[0])
    page.wait_for_function("() => document.querySelector('.thumb img').complete")
    page.locator("#matches li:nth-child(2) .thumb").hover()
    page.locator("#peek .box").wait_for()
    page.mouse.move(1, 1)
    page.locator("#peek").wait_for(state="hidden")
    page.locator("#matches li:nth-child(2) a").click()
    page.locator(".caption").wait_for()
    assert page.evaluate("() => window.jumps") < 0.05  # Core Web Vitals call 0.1 good


def test_a_photo_is_taken_with_the_computer_s_camera_which_is_let_go_then(
    service: Any, gallery: Any, chromium: Any, open_page: Any, tmp_path: Path
) -> None:
    photo, seen = gallery.files()[0], tmp_path / "seen.mjpeg"
    seen.write_bytes(photo.read_bytes() * 3)
    camera = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    page = open_page(service.url, of=chromium(*camera, f"--use-file-for-fake-video-capture={seen}"))
    page.locator("#snap").click()
    page.locator("#finder-said", has_text="Nothing is sent before you take the photo.").wait_for()
    assert clean(page) == []
    page.locator("#take").click()
    page.locator(FIRST).first.wait_for()
    assert page.locator(f"{FIRST} .name").text_content() == photo.parent.name
    assert page.locator("#stage button.box").count() == 1
    assert page.evaluate("() => document.querySelector('#live').srcObject") is None
