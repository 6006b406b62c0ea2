import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import calibration
from benchmarks.calibration import Gallery, answers_of, main, measure
from benchmarks.calibrators import METHODS

PEOPLE = {f"person {n:03}": 1 + n % 4 for n in range(140)}


@pytest.fixture(scope="module")
def gallery(labelled_faces_of: Callable[..., Any]) -> Gallery:
    return Gallery(*labelled_faces_of(PEOPLE, noise=0.8))


def test_half_of_the_questions_are_of_people_who_are_there_and_no_photo_finds_itself(gallery: Gallery) -> None:
    everybody = gallery.of(frozenset(PEOPLE))
    answers = answers_of(gallery, everybody)
    several = sum(1 for n in PEOPLE.values() if n > 1)
    single = sum(1 for n in PEOPLE.values() if n == 1)
    assert answers.cosines_QK.shape == (several + min(single, several), 10)
    assert (np.diff(answers.cosines_QK) <= 0).all()
    assert answers.searched == len(gallery.ids_N) - 1
    assert answers.cosines_QK.max() < 1 - 1e-6
    assert 0 < answers.right_QK.sum() <= sum(2 * n for n in PEOPLE.values())


def test_every_method_is_measured_on_every_division_and_the_error_is_that_of_a_plain_count(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measure(gallery, anew=1, lists=None)
    divisions = ["the version's own", "other halves 0", "fitted on 60 people 0"]
    assert [(row["division"], row["method"]) for row in rows] == [(d, m) for d in divisions for m in METHODS]
    assert all(0 < row["ece_pairs"] < 0.15 and row["loss_pairs"] < np.log(2) for row in rows)
    assert all(0 < row["ece_first_by_chance"] < 0.2 and 0 < row["most"] < 1 for row in rows)

    class Sure:
        def log_ratio(self, cosines: Any) -> Any:
            return np.full(np.shape(cosines), np.log(3.0))  # a pair is one person's by 0.75, whatever its cosine

    monkeypatch.setattr(calibration, "METHODS", {"sure": lambda pairs: Sure()})
    (row, *_) = measure(gallery, anew=0, lists=None)
    assert row["ece_pairs"] == pytest.approx(0.25)
    assert row["loss_pairs"] == pytest.approx(-(np.log(0.75) + np.log(0.25)) / 2)


def test_the_command_prints_a_table_and_draws_two_pictures(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, people in (("Train", list(PEOPLE)[:70]), ("Test", list(PEOPLE)[70:])):
        (tmp_path / f"peopleDev{part}.txt").write_text("\n".join(["70", *(f"{person}\t1" for person in people)]))
    monkeypatch.setattr(calibration, "read_gallery", lambda store: gallery)
    command = ["calibration", "--store", "s", "--lists", str(tmp_path), "--divisions", "1", "--json"]
    monkeypatch.setattr(sys, "argv", [*command, "--pictures", str(tmp_path / "pictures")])
    assert main() == 0
    *lines, last = capsys.readouterr().out.splitlines()
    rows = json.loads(last)["rows"]
    kinds = {"the version's own", "View 1's lists", "other halves, 1 times", "fitted on 60 people, 1 times"}
    assert {row["division"] for row in rows} == kinds
    assert sum(line.startswith("| other halves, 1 times |") for line in lines) == len(METHODS)
    for name in ("reliability.svg", "probability.svg"):
        text = (tmp_path / "pictures" / name).read_text()
        assert "var(--" not in text
        assert ElementTree.fromstring(text).tag.endswith("svg")
