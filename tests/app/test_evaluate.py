import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from app.cli import main
from tasks.steps.train_encoder import NetworkSettings, new_encoder


@pytest.fixture(scope="module")
def setting(drawn_people: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The command's arguments, and a folder of one's own: all pairs of four drawn people, a photo among them missing."""
    root = tmp_path_factory.mktemp("evaluate")
    people = [[f"{p.name}/{f.name}" for f in sorted(p.glob("*.jpg"))] for p in sorted(drawn_people.iterdir())[:4]]
    same = [pair for own in people for pair in combinations(own, 2)]
    different = [(one[k], two[k]) for one, two in combinations(people, 2) for k in range(2)]
    rows = [f"{a},{b},1" for a, b in same] + [f"{a},{b},0" for a, b in different]
    rows.append(f"{people[0][0]},nobody/1.jpg,0")
    (root / "pairs.csv").write_text("first,second,same\n" + "\n".join(rows) + "\n")
    (root / "out.txt").write_text(people[3][0].split("/")[0] + "\n")
    store = str(root / "store")
    encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32))
    arguments = ["evaluate", "--images", str(drawn_people), "--pairs", str(root / "pairs.csv"), "--store", store]
    return [*arguments, "--encoder", encoder, "--workers", "1"], root


def test_evaluate_prints_its_figures_and_writes_the_page(
    setting: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, root = setting
    page = root / "pages" / "page.html"
    assert main([*arguments, "--out", str(page), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert set(result) >= {"pairs", "accuracy_mean", "accuracy_std", "auc", "tar_at_far", "coverage", "eer", "seconds"}
    assert (result["pairs"], result["same"], result["coverage"]) == (25, 12, 24 / 25)
    assert (result["people"], result["excluded"], result["page"]) == (5, None, str(page))
    assert result["photos"] == {"named": 13, "indexed": 12, "missing": 1}
    assert result["seconds"]["total"] > 0
    assert "wrote" in captured.err
    assert "<svg" in page.read_text()


def test_evaluate_says_each_figure_in_words_and_how_many_pairs_are_left(
    setting: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, root = setting
    assert main([*arguments, "--exclude-people", str(root / "out.txt")]) == 0
    text = capsys.readouterr().out
    assert "16 pairs: 9 of one person, 7 of two, 4 people" in text
    assert f"left out: pairs that show any of 1 people in {root}/out.txt; 16 of 25 pairs remain" in text
    assert "coverage 93.75 %: 15 pairs have a face in both photos" in text
    assert "1 photo in 1 pair missing: there is no such photo in the folder" in text
    assert "pairs without two faces count as two people, at a cosine of -1" in text
    assert "mean and deviation over 7 folds (cut by a fixed seed)" in text
    assert "TAR at FAR 1e-2   not measured      needs at least 100 pairs of two people, there are 7" in text
    assert "retrieval: 9 photos of people with several, asked for among 9" in text


def test_evaluate_needs_no_prefect(setting: tuple[list[str], Path]) -> None:
    code = f"import sys; from app.cli import main; main({setting[0]!r}); print('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--pairs": "{root}/none.txt"}, "the pairs file {root}/none.txt does not exist"),
        ({"--images": "{root}/none"}, "the source {root}/none does not exist"),
        ({"--workers": "0"}, "--workers is 0: wanted at least 1"),
        ({"--encoder": "arcface"}, "unknown encoder 'arcface'"),
        ({"--exclude-people": "{root}/none.txt"}, "the list of people {root}/none.txt does not exist"),
    ],
)
def test_evaluate_refuses_in_one_sentence(
    setting: tuple[list[str], Path], change: dict[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, root = setting
    changed = [part for name, value in change.items() for part in (name, value.format(root=root))]
    assert main([*arguments, *changed, "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["error"].startswith(sentence.format(root=root))
    assert "Traceback" not in captured.err
