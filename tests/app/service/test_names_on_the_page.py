"""Names as people, file systems and attackers give them: the page in Chromium shows exactly that text, and runs none of it."""

import io
import itertools
import os
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image

from app.service.settings import ServiceSettings

HIT = "top.hit=1"
IN_HTML = [
    f"<script>{HIT}", f"<img src=x onerror={HIT}>", f"<svg onload={HIT}>", f"<svg><script>{HIT}",
    f"<body onload={HIT}>", "<iframe srcdoc='<script>parent.hit=1'>", f"<a href=javascript:{HIT}>x",
    f"<details open ontoggle={HIT}>", f"<input autofocus onfocus={HIT}>", f"<video><source onerror={HIT}>",
    f"<marquee onstart={HIT}>", f"<math><a xlink:href=javascript:{HIT}>", f"<object data=javascript:{HIT}>",
    f"<embed src=javascript:{HIT}>", f"<style onload={HIT}>*{{display:none}}",
    f"<meta http-equiv=refresh content=0;url=javascript:{HIT}>", f"<form><button formaction=javascript:{HIT}>",
    f"<template><script>{HIT}", f"<noscript><img src=x onerror={HIT}>", f"<base href=javascript:{HIT}>",
    f"<link rel=stylesheet href=x onerror={HIT}>", f"<plaintext>{HIT}", f"<!--><img src=x onerror={HIT}>",
    f"<![CDATA[<script>{HIT}]]>", f"<xmp><img src=x onerror={HIT}>", f"<isindex type=image src=x onerror={HIT}>",
    f"<dialog open><script>{HIT}", "<b>bold", "<h1>large", "<bdo dir=rtl>x",
]  # fmt: skip
BEFORE = ["", '">', "'>", "-->", "]]>", "&#34;>"]
ELSEWHERE = [
    f"javascript:{HIT}", f"data:text,<script>{HIT}", f"${{{HIT}}}", f"{{{{constructor.constructor('{HIT}')()}}}}",
    f"<%= {HIT} %>", f"#{{{HIT}}}", f"';{HIT};'", f'";{HIT};"', f"\\x3cscript\\x3e{HIT}",
    f"\\u003cscript\\u003e{HIT}", f"%3Cscript%3E{HIT}", f"&lt;script&gt;{HIT}", f"＜script＞{HIT}",
    f"+ADw-script+AD4-{HIT}", "'", '"', "`", "''", '""', "\\", "\\\\", "\\'", "&", "&amp;", "&#0;", "&nbsp;", "<",
    ">", "<>", "%", "%%", "%s%n%x", "%00", "%2e%2e%2f", "{}", "{0}", "{0.__class__}", "$(id)", "`id`", "; rm -rf ~",
    "| cat", "-rf", "--help", "$HOME", "~", "~root", "*", "?", "[a-z]", "a:b", "a;b", "a,b", "a=b", "a+b", "a#b",
    "a?b=c", "a@b", "'; DROP TABLE faces;--", "' OR '1'='1", "1 OR 1=1", "a..\\..\\windows", "a..%c0%af", "C:\\x",
    "CON", "nul", "file:x", "s3:x", "None", "null", "NaN", "undefined", "true", "0", "-1", "1e999", "0x1F", "1,000",
    "__proto__", "constructor", "toString", "hasOwnProperty", "then", "length", " leading", "trailing ",
    "two  spaces", "tab\there", "line\nbreak", "carriage\rreturn", "bell\a", "escape\x1b[31mred", "delete\x7f",
    "form\ffeed", "a\u0085b", "a\u2028b", "a\u2029b", "\u00a0", "\u200b", "zero\u200bwidth", "join\u200der",
    "\u2060word", "\ufeffbom", "soft\u00adhyphen", "\u3164", "\u115f", "a\u034fb", "\u202eright to left",
    "\u2066isolate", "\u202dover\u202c", "\u200fmark", "\u061c", "مرحبا", "שלום", "אבג abc דהו", "(مرحبا)", "ة<b>ة",
    "नमस्ते", "ไทย", "မြန်မာ", "ᚠᛇᚻ", "日本語", "繁體字", "한국어", "Ω≈ç√∫", "Ａｎｎ", "ﬁne", "ſ", "ß", "İstanbul", "ıi", "Ǆ",
    "é", "e\u0301", "Å", "Å", "A\u030a", "Z\u0351\u036b\u0343\u036a", "\u0301\u0301", "😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷",
    "👍🏿", "☺️", "\U000e0041tag", "𝒜𝓃𝓃", "𐐷", "\ue000", "\ufffd", "\ufffe", "\U0010ffff", "a" * 200, "W" * 60,
    "字" * 60, "ab " * 60, "-" * 90,
]  # fmt: skip


def names() -> list[str]:
    """512 names, all different, which a file can have on Linux."""
    found = dict.fromkeys(ELSEWHERE)
    found |= dict.fromkeys(start + tag for start, tag in itertools.product(BEFORE, IN_HTML))
    chance, letters = random.Random(0), [name for name in ELSEWHERE if len(name) < 4]
    while len(found) < 512:
        found["".join(chance.choices(letters, k=4))] = None
    return list(found)[:512]


@pytest.fixture(scope="module")
def named(
    gallery: Any, tmp_path_factory: pytest.TempPathFactory, serving: Any
) -> Iterator[tuple[Any, list[tuple[str, str]], str]]:
    """A service whose 256 photos carry the names: one as its folder and so as the person's, another as the file's; half are of each day."""
    folder, listed = tmp_path_factory.mktemp("names"), names()
    sink = io.BytesIO()
    with Image.open(gallery.files()[0]) as drawn:
        drawn.resize((84, 84)).save(sink, "JPEG", quality=90)
    jpeg, pairs = sink.getvalue(), list(zip(listed[:256], listed[256:], strict=True))
    for n, (label, file_name) in enumerate(pairs):
        path = folder / "photos" / label / f"{file_name}.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(
            jpeg[:2] + b"\xff\xfe\x00\x06" + struct.pack(">I", n) + jpeg[2:]
        )  # a comment makes each another photo
        os.utime(path, (86_400 * (365 + n // 128) + 43_200,) * 2)
    shutil.copytree(Path(gallery.store) / "encoders", folder / "store" / "encoders")
    made = type(gallery)(store=str(folder / "store"), photos=folder / "photos", encoder=gallery.encoder)
    made.build(shard_photos=256)
    with serving(ServiceSettings(store=made.store, audit=os.devnull)) as running:
        yield running, pairs, running.search(jpeg, k=1).json()["faces"][0]["matches"][0]["face_id"]


CARDS = """() => [...document.querySelectorAll('#matches li')].map((card) => [card.querySelector('.name').textContent,
    card.querySelector('small bdi').textContent, card.querySelector('button').getAttribute('aria-label')])"""


def test_512_names_are_shown_as_they_are_and_none_of_them_runs(named: Any, open_page: Any) -> None:
    service, pairs, face_id = named
    assert len({*itertools.chain(*pairs)}) == 512
    page = open_page(f"{service.url}/#face={face_id}")
    page.locator("#said", has_text="24 matches among 256 faces").wait_for()
    page.locator("#more").click()
    page.locator("#said", has_text="48 matches among 256 faces").wait_for()
    assert page.url.endswith("&k=48")
    shown: list[tuple[str, str]] = []
    for day in (1, 2):
        page.goto(f"{service.url}/#face={face_id}&k=200&from=1971-01-0{day}&to=1971-01-0{day}")
        page.locator("#said", has_text="128 matches").wait_for()
        for label, file_name, described in page.evaluate(CARDS):
            shown.append((label, file_name.removesuffix(".jpg")))
            assert label in described
    assert sorted(shown) == sorted(pairs)
    headings: list[str] = []
    for day in (1, 2):
        page.goto(f"{service.url}/#face={face_id}&k=200&group=1&from=1971-01-0{day}&to=1971-01-0{day}")
        page.locator("#matches section").first.wait_for()
        page.locator("#said", has_text="128 matches").wait_for()
        headings += page.locator("#matches h3 bdi").evaluate_all("(all) => all.map((one) => one.textContent)")
    assert sorted(headings) == sorted(label for label, _ in pairs)
    options = page.evaluate("() => [...document.querySelectorAll('#labels option')].map((option) => option.value)")
    assert sorted(options) == sorted(label for label, _ in pairs)
    assert page.evaluate("() => window.hit") is None
    assert page.evaluate("() => document.scripts.length") == 1
    tags = page.evaluate(
        "() => [...new Set([...document.querySelectorAll('#matches *')].map((e) => e.tagName))].sort()"
    )
    assert tags == ["A", "BDI", "BUTTON", "DIV", "H3", "IMG", "LI", "SECTION", "SMALL", "SPAN", "UL"]


def test_a_name_is_the_same_as_a_filter_in_the_address_and_in_all_that_is_told_of_a_match(
    named: Any, open_page: Any
) -> None:
    service, pairs, face_id = named
    page = open_page(service.url)
    for label, file_name in pairs[:: len(pairs) // 12]:
        page.goto(f"{service.url}/#{urlencode({'face': face_id, 'label': label})}")
        page.locator("#said", has_text="1 match among 1 face").wait_for()
        page.locator(".caption").wait_for()
        assert page.locator("#chosen-labels bdi").text_content() == label
        page.locator(".thumb").click()
        page.locator("#shown .box").wait_for()
        assert page.locator("#shown-name").text_content() == label
        assert page.locator("#shown-facts bdi").text_content() == f"{label}/{file_name}.jpg"
        page.keyboard.press("Escape")
