import json
from pathlib import Path

import pytest

from app.cli import main


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            ["--margin", "10"],
            "margin: got 10.0, wanted a distance in (0, 2): unit vectors are never further apart than 2",
        ),
        (["--clip-norm", "0"], "clip_norm: got 0.0, wanted a value above 0"),
        (["--backbone-rate", "2"], "backbone_rate: got 2.0, wanted a share in (0, 1]"),
        (["--processes", "0"], "per_machine: got 0, wanted at least 1"),
        (["--machines", "2"], "2 machines need a place to meet: give host:port of this one"),
    ],
)
def test_a_training_that_cannot_be_is_refused_at_once_and_leaves_no_store(
    asked: list[str], sentence: str, capsys: pytest.CaptureFixture[str], drawn_people: Path, tmp_path: Path
) -> None:
    assert main(["train", str(drawn_people), *asked, "--store", str(tmp_path / "store"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
    assert told.startswith(f"this training cannot be: {sentence}")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("asked", [["--loss", "arcface"], ["--network", "vgg"], ["--precision", "float16"]])
def test_a_choice_that_is_none_is_a_usage_error(asked: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", "people", *asked])
    assert exit_.value.code == 2
