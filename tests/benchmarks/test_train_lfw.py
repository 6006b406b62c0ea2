import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import train_lfw
from benchmarks.train_lfw import SMALL, Arm, main

TINY = replace(
    SMALL,
    width=0.125,
    dimension=16,
    settings=replace(SMALL.settings, epochs=2, batches_per_epoch=2, batch_people=3, batch_photos=2, batch_strangers=1),
)


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen drawn people by LFW's names and lists, twelve to learn from, one of whom has a single photo."""
    from tasks.steps.draw_people import draw_people

    tmp_path = tmp_path_factory.mktemp("lfw")
    folder = tmp_path / "drawn"
    draw_people(folder, people=range(20, 36), views=range(3), seed=5, workers=1)
    people = sorted(path.name for path in folder.iterdir())
    for person in people:
        target = tmp_path / "lfw" / "images" / person
        target.mkdir(parents=True)
        for number, photo in enumerate(sorted((folder / person).glob("*.jpg")), start=1):
            if person != people[0] or number == 1:
                shutil.copy(photo, target / f"{person}_{number:04d}.jpg")
    learnt, asked = people[:12], people[12:]
    for name, group in (("peopleDevTrain", [*learnt, "Nobody_Here"]), ("peopleDevTest", asked)):
        lines = [str(len(group)), *(f"{person}\t3" for person in group)]
        (tmp_path / "lfw" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    pairs = [f"{person}\t{a}\t{b}" for person in asked for a, b in ((1, 2), (1, 3), (2, 3))]
    pairs += [f"{a}\t1\t{b}\t{n}" for a, b in zip(asked, [*asked[1:], asked[0]], strict=True) for n in (1, 2, 3)]
    (tmp_path / "lfw" / "pairsDevTest.txt").write_text("\n".join(["12", *pairs]) + "\n")
    return tmp_path / "lfw"


def test_arms_are_measured_on_the_test_people_and_finished_ones_are_not_run_again(
    lfw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_lfw, "SMALL", TINY)
    trained: list[set[str]] = []
    real = train_lfw.train_encoder

    def watched(crops, labels, **rest):  # type: ignore[no-untyped-def]
        trained.append(set(rest["split"].train) | set(rest["split"].validation))
        return real(crops, labels, **rest)

    monkeypatch.setattr(train_lfw, "train_encoder", watched)

    def run(*arms: str) -> dict[str, object]:
        command = [
            "train_lfw",
            "--lfw",
            str(lfw),
            "--work",
            str(tmp_path / "work"),
            "--json",
            "--threads",
            "1",
            "--arms",
        ]
        monkeypatch.setattr("sys.argv", [*command, *arms])
        assert main() == 0
        result: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return result

    first = run("untrained", "contrastive+reconstruction")
    assert [row["arm"] for row in first["table"]] == ["untrained", "contrastive+reconstruction"]  # type: ignore[attr-defined]
    for row in first["rows"]:  # type: ignore[attr-defined]
        assert row["pairs"] == 24
        assert 0 <= row["accuracy"] <= 1
        assert sum(row["spectrum"]) == pytest.approx(1, abs=1e-3)
    asked = {line.split("\t")[0] for line in (lfw / "peopleDevTest.txt").read_text().splitlines()[1:]}
    assert len(trained) == 1
    assert not trained[0] & asked
    assert len(trained[0]) == 12

    again = run("untrained", "contrastive+reconstruction", "triplet")
    assert len(trained) == 2
    assert again["rows"][:2] == first["rows"]  # type: ignore[index]


def test_an_interrupted_arm_goes_on_from_its_checkpoint(
    lfw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = train_lfw.read_people(lfw / "peopleDevTrain.txt") | train_lfw.read_people(lfw / "peopleDevTest.txt")
    faces = train_lfw.cut_faces(lfw, people, side_px=TINY.side_px, work=tmp_path)
    assert faces.missing == 1

    def run(folder: str) -> dict[str, object]:
        return train_lfw.run_arm(Arm(), TINY, faces, lfw=lfw, seed=0, device="cpu", threads=1, folder=tmp_path / folder)

    straight = run("straight")

    def stop(record: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_lfw, "_tell", stop)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    told: list[object] = []
    monkeypatch.setattr(train_lfw, "_tell", told.append)
    resumed = run("stopped")
    assert len(told) == 1
    changing = {"seconds", "faces_per_second"}
    assert {k: v for k, v in resumed.items() if k not in changing} == {
        k: v for k, v in straight.items() if k not in changing
    }


def test_a_gpu_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["train_lfw", "--lfw", "x", "--work", "y", "--device", "cuda"])
    assert main() == 1
    assert "no GPU is at hand here" in capsys.readouterr().err
