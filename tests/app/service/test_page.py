import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Debian's chromium is not installed")
def test_a_photo_is_picked_its_face_boxed_and_a_found_one_asked_about_in_turn(service: Any, gallery: Any) -> None:
    photo = gallery.files()[0]
    with sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 360, "height": 800}, bypass_csp=False)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(service.url)
        page.set_input_files("#photo", str(photo))
        page.wait_for_selector("#matches li")
        assert page.locator("#stage button").count() == 1
        assert photo.parent.name in page.locator("#matches li").first.inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.click("#matches li:first-child >> text=Find this one")
        page.wait_for_function("document.querySelectorAll('#stage button').length === 0")
        page.wait_for_selector("#matches li")
        assert "#face=" in page.url
        assert "jpg" not in page.url
        page.evaluate(
            "document.querySelector('#least').value = 1; document.querySelector('#least').dispatchEvent(new Event('input'))"
        )
        assert page.locator("#matches li").count() <= 1
        browser.close()
    assert complaints == []
