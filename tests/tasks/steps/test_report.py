import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest

from store.layout import open_store
from store.versions import read_file, read_version
from tasks.steps.pages import jpeg_url, render
from tasks.steps.progress import Stages, listening, report, stage_line
from tasks.steps.summarise import summarise_build


@pytest.mark.usefixtures("easy_faces")
def test_a_report_says_what_is_in_the_version_and_why_the_rest_is_not(
    builder: Any, tmp_path: Path, paint: Callable[..., Path]
) -> None:
    folder = tmp_path / "<b>photos</b>"
    paint(folder / "ann" / "a.png", 1)
    paint(folder / "ann" / "b.png", 2)
    paint(folder / "bob" / "c.png", 3)
    paint(folder / "dark.png", None)
    (folder / "broken.png").write_bytes(b"x")
    builder.build(folder, labels="folder")
    storage = open_store(builder.store)
    text = read_file(storage, read_version(storage), "report.html").decode()
    assert "3 faces in 5 photos" in text
    assert "3 faces carry a name; there are 2 names" in text
    assert "no face was found" in text
    assert "the bytes are no image" in text
    assert "<b>photos</b>" not in text
    assert text.count("<rect") == 6  # photos, crops, embeddings, index; contract and encoder; no version before
    assert re.search(r"<text[^>]*>…?[^<]*&lt;b&gt;photos&lt;/b&gt;</text>", text)
    assert not re.search(r"(src|href)\s*=", text)


def test_a_page_escapes_values_and_refuses_a_missing_one() -> None:
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render("contact_sheet.html.j2", sections=[])
    page = render("contact_sheet.html.j2", title="<x>", lead="&", sections=[], url=jpeg_url).decode()
    assert "&lt;x&gt;" in page
    assert jpeg_url(b"\xff\xd8") == "data:image/jpeg;base64,/9g="


def test_reports_reach_the_listener_only_while_it_listens() -> None:
    heard: list[tuple[str, int, int]] = []
    report("align", 1, 2)
    with listening(lambda *what: heard.append(what)):
        report("align", 2, 2)
        with listening(lambda *_: None):
            report("embed", 1, 1)
        report("index", 0, 1)
    report("index", 1, 1)
    assert heard == [("align", 2, 2), ("index", 0, 1)]


def test_stages_add_up_and_count_a_stage_that_fails() -> None:
    stages = Stages()
    with stages.stage("a"), stages.stage("b"):
        pass
    with pytest.raises(KeyError), stages.stage("a"):
        raise KeyError
    seconds = stages.seconds()
    assert list(seconds) == ["b", "a", "total"]
    assert seconds["total"] >= seconds["a"] >= 0


def test_a_stage_that_is_over_is_told_with_its_counts_and_one_that_failed_is_not() -> None:
    told: list[tuple[str, dict[str, int]]] = []
    stages = Stages(tell=lambda name, seconds, counts: told.append((name, counts)) if seconds >= 0 else None)
    with stages.stage("align") as counts:
        counts.update({"photos": 1204, "shards": 5})
    with pytest.raises(KeyError), stages.stage("embed"):
        raise KeyError
    assert told == [("align", {"photos": 1204, "shards": 5})]
    assert stage_line("align", 61.2, told[0][1]) == "align: 1,204 photos, 5 shards in 61.2 s (19.7 photos/s)"
    assert stage_line("check", 0.25, {}) == "check: 0.2 s"


@pytest.mark.usefixtures("easy_faces")
def test_a_summary_is_of_the_whole_version_even_when_nothing_was_published(
    builder: Any, tmp_path: Path, paint: Callable[..., Path]
) -> None:
    paint(tmp_path / "in" / "a.png", 1)
    paint(tmp_path / "in" / "dark.png", None)
    first = builder.plan(tmp_path / "in")
    empty = summarise_build(first, store=builder.store, published=False, seconds={}, computed={})
    assert (empty["version"], empty["faces"], empty["photos"], empty["index"]) == (None, 0, {}, None)
    builder.build(tmp_path / "in")
    plan = builder.plan(tmp_path / "in")
    summary = summarise_build(plan, store=builder.store, published=False, seconds={"total": 1.0}, computed={"kept": 1})
    assert summary["version"] == 1
    assert summary["parent"] is None
    assert summary["published"] is False
    assert summary["photos"] == {"indexed": 1, "no_face": 1}
    assert summary["seen"] == 2
    assert summary["faces"] == 1
    assert summary["index"]["recall_at_10"] == 1.0
    assert summary["plan"]["unchanged"] == 2
    assert summary["encoder"] == builder.encoder.id
