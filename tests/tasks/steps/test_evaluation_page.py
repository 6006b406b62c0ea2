import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.folds import stratified_folds
from models.retrieval import measure_retrieval
from models.roc import roc_curve
from models.tar_at_far import tar_at_far
from models.verification import Fold, cross_validate
from tasks.steps.embed_faces import embed_faces
from tasks.steps.evaluate_encoder import measure_encoder
from tasks.steps.evaluation import Curve, Evaluation, Histogram, Uncovered, WrongPair
from tasks.steps.evaluation_page import evaluation_markdown, write_evaluation_page
from tasks.steps.evaluation_plots import plots_of
from tasks.steps.find_faces import find_faces
from tasks.steps.plan_evaluation import Exclusion, plan_evaluation

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Figures of drawn scores; everything that a user names is hostile."""
    rng = np.random.default_rng(0)
    same = np.arange(400) < 200
    scores = np.clip(rng.normal(0.1 + 0.5 * same, 0.15), -1, 1)
    curve = roc_curve(scores, same)
    edges = np.linspace(-0.5, 1, 31)
    centres = rng.normal(size=(60, 16))
    faces = np.repeat(centres, 2, axis=0) + rng.normal(size=(120, 16))
    return Evaluation(
        images=f"/i/{HOSTILE}",
        pairs_file=f"/p/{HOSTILE}.txt",
        format="CSV",
        exclusion=Exclusion(f"/x/{HOSTILE}", names=3, pairs_before=410, pairs_left=400),
        encoder="0" * 32,
        encoder_name=HOSTILE,
        pairs=400,
        same=200,
        covered=390,
        uncovered=(Uncovered("no_face", HOSTILE, photos=4, pairs=10),),
        photos={"named": 800, "indexed": 796, "no_face": 4},
        several_faces=7,
        people=120,
        folds_from="cut",
        folds=cross_validate(scores, same, stratified_folds(same)),
        accuracy_covered=0.97,
        auc=curve.auc,
        equal_error=curve.equal_error,
        tar_at_far=tuple(tar_at_far(scores, same, fars=(0.1, 0.01, 0.001))),
        retrieval=measure_retrieval(faces, np.repeat(np.arange(60), 2)),
        retrieval_reason=None,
        curve=Curve(tuple(curve.thinned(100).far), tuple(curve.thinned(100).tar)),
        histogram=Histogram(
            tuple(edges), tuple(np.histogram(scores[same], edges)[0]), tuple(np.histogram(scores[~same], edges)[0])
        ),
        wrong=(WrongPair(f"a/{HOSTILE}.jpg", "b_c/2.jpg", True, 0.1, 0.4, (("0" * 32, 1), ("0" * 32, 2))),),
        wrong_pairs=12,
    )


class Page(HTMLParser):
    """What a browser would load or take for an address of its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.loaded += [str(given[name]) for name in ("src", "href", "xlink:href") if name in given]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def page(evaluation: Evaluation, builder: Any, tmp_path: Path) -> str:
    html = tmp_path / "deep" / "page.html"
    write_evaluation_page(replace(evaluation, wrong=()), store=builder.store, contract=builder.contract, html=html)
    return html.read_text()


def test_the_page_shows_the_figures_and_loads_nothing(page: str, evaluation: Evaluation) -> None:
    read = Page(page)
    text = " ".join("".join(read.text).split())
    assert f"{evaluation.folds.mean:.4f}" in text
    assert f"± {evaluation.folds.std:.4f} over 10 folds; 0.9700 among pairs with two faces" in text
    assert "97.50 %" in text
    assert "not measured: needs at least 1,000 pairs of two people, there are 200" in text
    assert "400 of 410 pairs remain" in text
    assert read.tags.count("svg") == 4
    assert all(link.startswith(("#", "data:image/")) for link in read.loaded)
    assert "http://" not in page
    assert "https://" not in page


def test_nothing_a_user_names_is_taken_for_html(page: str, evaluation: Evaluation) -> None:
    assert "script" not in Page(page).tags
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert HOSTILE not in evaluation_markdown(evaluation)
    assert "<" not in evaluation_markdown(evaluation)


def test_no_two_pictures_share_an_id_and_every_reference_is_met(page: str) -> None:
    read = Page(page)
    assert len(set(read.ids)) == len(read.ids) > 20
    references = re.findall(r"url\(#([^)]+)\)", page) + [link[1:] for link in read.loaded if link.startswith("#")]
    assert references
    assert set(references) <= set(read.ids)


def test_pictures_take_their_colours_from_the_page(evaluation: Evaluation, page: str) -> None:
    defined = set(re.findall(r"--(\w+):", page))
    for plot in plots_of(evaluation):
        svg = plot.svg()
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        assert set(re.findall(r"var\(--(\w+)\)", svg)) <= defined
        assert not re.search(r"(?:fill|stroke): (?!none|var\()", svg)
        assert "<style" not in svg
        assert svg == plot.svg()  # the same figures draw the same picture


def test_pictures_of_extreme_figures_can_be_drawn(evaluation: Evaluation) -> None:
    perfect = roc_curve([0.9, 0.8, 0.1, 0.2], [True, True, False, False])
    empty = Histogram((-1.0, 0.0, 1.0), (0, 0), (0, 0))
    folds = replace(evaluation.folds, folds=(Fold(0, 2, float("inf"), 1.0), Fold(1, 2, float("-inf"), 1.0)))
    nothing = replace(
        evaluation,
        pairs=4,
        same=2,
        covered=0,
        curve=Curve(tuple(perfect.far), tuple(perfect.tar)),
        histogram=empty,
        folds=folds,
        tar_at_far=tuple(tar_at_far([0.9, 0.8, 0.1, 0.2], [True, True, False, False], fars=(0.1, 0.01))),
        retrieval=None,
        retrieval_reason="nobody knows",
    )
    plots = plots_of(nothing)
    assert [plot.key for plot in plots] == ["roc", "scores", "folds"]
    for plot in plots:
        assert plot.svg().startswith("<svg")
        with Image.open(io.BytesIO(plot.png())) as image:
            assert image.width > 300


def test_the_artifact_holds_the_pictures_and_stays_small(evaluation: Evaluation) -> None:
    text = evaluation_markdown(evaluation)
    assert text.count("data:image/png;base64,") == 4
    assert len(text) < 200_000
    assert f"| accuracy | {evaluation.folds.mean:.4f} |" in text


@pytest.mark.usefixtures("easy_faces")
def test_the_most_wrong_pairs_are_shown_with_their_faces(
    builder: Any, tmp_path: Path, paint: Callable[..., Path]
) -> None:
    rows = []
    for n in range(6):
        paint(tmp_path / "images" / f"p{n}" / "1.png", n)
        paint(tmp_path / "images" / f"p{n}" / "2.png", 100 + n)  # another noise: nobody is alike
        rows += [f"p{n}/1.png,p{n}/2.png,1", f"p{n}/1.png,p{(n + 1) % 6}/2.png,0"]
    (tmp_path / "pairs.csv").write_text("first,second,same\n" + "\n".join(rows))
    plan = plan_evaluation(
        str(tmp_path / "pairs.csv"),
        images=str(tmp_path / "images"),
        store=builder.store,
        contract=builder.contract,
        encoder=builder.encoder.id,
    )
    for ref in plan.requests:
        found = find_faces(ref, store=builder.store, contract=builder.contract)
        embed_faces(found, store=builder.store, contract=builder.contract.id, encoder=builder.encoder)
    evaluation = measure_encoder(plan, store=builder.store, contract=builder.contract, encoder=builder.encoder)
    assert evaluation.wrong_pairs > 0
    write_evaluation_page(evaluation, store=builder.store, contract=builder.contract, html=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * len(evaluation.wrong)
    assert f"{evaluation.wrong_pairs} pairs with two faces are told wrongly" in page
