import importlib
import json
import os
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.folds import stratified_folds
from models.verification import cross_validate
from store.errors import LookalikeError
from store.layout import open_store
from store.shards import read_faces, read_photos
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import embed_faces, face_input_of_row
from tasks.steps.evaluate_encoder import evaluate_encoder, measure_encoder
from tasks.steps.evaluation import Evaluation
from tasks.steps.find_faces import FoundFaces, find_faces
from tasks.steps.plan_evaluation import plan_evaluation
from tasks.steps.progress import listening
from tasks.steps.resolve_encoder import EncoderRef, load_stored_encoder
from tasks.steps.train_encoder import NetworkSettings, new_encoder


@pytest.fixture(scope="module")
def photos(drawn_people: Path, tmp_path_factory: pytest.TempPathFactory, paint: Callable[..., Path]) -> Path:
    """The drawn people, a black picture of the first of them, and all pairs within a person and as many others."""
    root = tmp_path_factory.mktemp("evaluate")
    images = root / "images"
    shutil.copytree(drawn_people, images)
    people = {p.name: [f"{p.name}/{f.name}" for f in sorted(p.glob("*.jpg"))] for p in sorted(images.iterdir())}
    same = [pair for own in people.values() for pair in combinations(own, 2)]
    names = list(people)
    rng = np.random.default_rng(4)
    different = []
    while len(different) < len(same):
        one, two = rng.choice(len(names), 2, replace=False)
        pair = (people[names[one]][rng.integers(3)], people[names[two]][rng.integers(3)])
        if pair not in different:
            different.append(pair)
    first = names[0]
    paint(images / first / "black.png", None)
    rows = [f"{a},{b},1" for a, b in same] + [f"{a},{b},0" for a, b in different]
    (root / "pairs.csv").write_text("first,second,same\n" + "\n".join(rows) + "\n")
    rows += [f"{first}/black.png,{people[first][0]},1", f"{first}/black.png,{people[names[1]][0]},0"]
    rows += [f"{first}/gone.jpg,{first}/black.png,1", f"{names[1]}/gone.jpg,{people[first][0]},0"]
    (root / "gaps.csv").write_text("first,second,same\n" + "\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def store(small_encoder: tuple[Path, EncoderRef], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("evaluated") / "store"
    shutil.copytree(small_encoder[0], folder)
    return str(folder)


@pytest.fixture(scope="module")
def evaluated(photos: Path, store: str, small_encoder: tuple[Path, EncoderRef]) -> Evaluation:
    """The pairs without gaps, by the whole step, in a supervised child."""
    heard: list[str] = []
    with listening(lambda stage, *_: heard.append(stage)):
        evaluation, seconds = evaluate_encoder(
            str(photos / "pairs.csv"), images=str(photos / "images"), store=store, encoder=small_encoder[1].id
        )
    assert list(dict.fromkeys(heard)) == ["list", "align", "embed", "measure"]
    assert set(seconds) == {"list", "align", "embed", "measure", "total"}
    return evaluation


def measured(pairs: Path, photos: Path, store: str, encoder: EncoderRef) -> Evaluation:
    """The same without children."""
    plan = plan_evaluation(
        str(pairs), images=str(photos / "images"), store=store, contract=Contract(), encoder=encoder.id
    )
    found = [find_faces(ref, store=store, contract=Contract()) for ref in plan.requests]
    for shard in [*found, *(FoundFaces(shard=ref, computed=False) for ref in plan.kept)]:
        embed_faces(shard, store=store, contract=Contract().id, encoder=encoder)
    return measure_encoder(plan, store=store, contract=Contract(), encoder=encoder)


def slow_scores(pairs: Path, images: Path, store: str, encoder: EncoderRef) -> list[tuple[float, bool]]:
    """The cosine of each pair, photo by photo, from the crop of the face nearest the centre."""
    storage, net = open_store(store), load_stored_encoder(open_store(store), encoder.id)
    vectors: dict[str, Any] = {}
    for path in (Path(store) / "photos" / Contract().id).glob("*.parquet"):
        faces = read_faces(storage, contract=Contract().id, shard=path.stem).to_pylist()
        for photo in read_photos(storage, contract=Contract().id, shard=path.stem).to_pylist():
            middle = np.array([photo["width"], photo["height"]]) / 2
            own = [face for face in faces if face["photo_sha256"] == photo["photo_sha256"]]
            if own:
                away = [np.linalg.norm(np.array(face["box"]).reshape(2, 2).mean(axis=0) - middle) for face in own]
                main = own[int(np.argmin(away))]
                size = (photo["width"], photo["height"])
                vectors[photo["uri"]] = net.embed(face_input_of_row(main, net.card, photo_size=size)[None])[0]
    rows = [line.split(",") for line in pairs.read_text().splitlines()[1:]]
    return [
        (float(vectors[f"{images}/{first}"] @ vectors[f"{images}/{second}"]), same == "1")
        for first, second, same in rows
    ]


def test_the_figures_are_those_of_cosines_taken_photo_by_photo(
    evaluated: Evaluation, photos: Path, store: str, small_encoder: tuple[Path, EncoderRef]
) -> None:
    scores = slow_scores(photos / "pairs.csv", photos / "images", store, small_encoder[1])
    alike = [score for score, same in scores if same]
    unlike = [score for score, same in scores if not same]
    wins = [(a > u) + 0.5 * (a == u) for a in alike for u in unlike]
    assert evaluated.auc == pytest.approx(np.mean(wins), abs=0.005)
    told = [same for _, same in scores]
    folds = cross_validate([score for score, _ in scores], told, stratified_folds(told))
    assert evaluated.folds.mean == pytest.approx(folds.mean, abs=0.03)  # a pair at the threshold, by the last bits
    assert evaluated.pairs == evaluated.covered == sum(fold.pairs for fold in evaluated.folds.folds) == 48
    assert evaluated.coverage == 1
    assert sum(evaluated.histogram.same) == sum(evaluated.histogram.different) == 24
    assert (evaluated.people, evaluated.photos) == (8, {"named": 24, "indexed": 24})
    assert evaluated.accuracy_covered == evaluated.folds.mean
    assert evaluated.retrieval is not None
    assert (evaluated.retrieval.queries, evaluated.retrieval.people) == (24, 8)


def test_a_pair_without_two_faces_counts_as_two_people_and_is_told(
    evaluated: Evaluation, photos: Path, store: str, small_encoder: tuple[Path, EncoderRef]
) -> None:
    gaps = measured(photos / "gaps.csv", photos, store, small_encoder[1])
    assert (gaps.pairs, gaps.covered, gaps.coverage) == (52, 48, 48 / 52)
    assert {(row.status, row.photos, row.pairs) for row in gaps.uncovered} == {("no_face", 1, 3), ("missing", 2, 2)}
    assert gaps.photos == {"named": 27, "indexed": 24, "missing": 2, "no_face": 1}
    assert sum(n for status, n in gaps.photos.items() if status != "named") == gaps.photos["named"]
    # against every pair of the other kind, a gap of one person loses, and one of two people wins
    wins = evaluated.auc * 24 * 24 + 24 * 2 + 0 * 24 * 2 + 0.5 * 2 * 2
    assert gaps.auc == pytest.approx(wins / (26 * 26))
    assert sum(gaps.histogram.same) == 24
    assert gaps.accuracy_covered is not None
    assert gaps.retrieval == evaluated.retrieval


def test_another_encoder_reads_no_photo(photos: Path, evaluated: Evaluation, store: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(photos / "images", images)
    other = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=16, seed=7))
    first = EncoderRef(id=evaluated.encoder, name="first", dimension=32)
    (tmp_path / "pairs.csv").write_text((photos / "pairs.csv").read_text())
    before = measured(tmp_path / "pairs.csv", tmp_path, store, first)
    for path in images.rglob("*.jpg"):  # what there was can no longer be read: same size, same time
        was = path.stat()
        path.write_bytes(bytes(was.st_size))
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    after = measured(tmp_path / "pairs.csv", tmp_path, store, EncoderRef(id=other, name="other", dimension=16))
    assert after.coverage == before.coverage == 1
    assert after.auc != before.auc


def test_a_repeat_computes_nothing_and_says_the_same(
    evaluated: Evaluation, photos: Path, store: str, small_encoder: tuple[Path, EncoderRef]
) -> None:
    files = {path: path.stat().st_mtime_ns for path in Path(store).rglob("*.parquet")}
    again, _ = evaluate_encoder(
        str(photos / "pairs.csv"), images=str(photos / "images"), store=store, encoder=small_encoder[1].id
    )
    assert again == evaluated
    assert {path: path.stat().st_mtime_ns for path in Path(store).rglob("*.parquet")} == files


DIES_ONCE = """
import os, signal
from pathlib import Path
from tasks.steps import embed_faces as step

def embed_faces(found, *, store, **kwargs):
    if not (mark := Path(store).with_name("died")).exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return step.embed_faces(found, store=store, **kwargs)
"""


def test_a_child_that_is_killed_while_it_embeds_costs_no_figure(
    evaluated: Evaluation,
    photos: Path,
    store: str,
    small_encoder: tuple[Path, EncoderRef],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(store, tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "embeddings")
    (tmp_path / "dies_once.py").write_text(DIES_ONCE)
    monkeypatch.syspath_prepend(tmp_path)  # spawned children have their parent's
    monkeypatch.setattr("tasks.steps.evaluate_encoder.embed_faces", importlib.import_module("dies_once").embed_faces)
    again, _ = evaluate_encoder(
        str(photos / "pairs.csv"),
        images=str(photos / "images"),
        store=str(tmp_path / "store"),
        encoder=small_encoder[1].id,
    )
    assert (tmp_path / "died").exists()
    assert again == evaluated


def test_the_json_holds_the_promised_keys_and_no_names(evaluated: Evaluation, photos: Path) -> None:
    result = evaluated.as_json()
    text = json.dumps(result, allow_nan=False)
    assert set(result) >= {"pairs", "accuracy_mean", "accuracy_std", "auc", "tar_at_far", "coverage", "eer", "roc"}
    assert list(result["tar_at_far"]) == ["1e-1", "1e-2", "1e-3", "1e-4"]
    assert result["tar_at_far"]["1e-1"]["low"] <= result["tar_at_far"]["1e-1"]["tar"]
    assert result["tar_at_far"]["1e-2"]["tar"] is None
    assert "there are 24" in result["tar_at_far"]["1e-2"]["reason"]
    assert not [person.name for person in (photos / "images").iterdir() if person.name in text]


def test_the_wrong_pairs_are_those_beyond_their_threshold_worst_first(evaluated: Evaluation) -> None:
    assert 0 < evaluated.wrong_pairs <= 48  # the encoder is not trained
    assert len(evaluated.wrong) == min(evaluated.wrong_pairs, 24)
    beyond = [abs(pair.cosine - pair.threshold) for pair in evaluated.wrong]
    assert beyond == sorted(beyond, reverse=True)
    assert all((pair.cosine >= pair.threshold) != pair.same for pair in evaluated.wrong)


def test_folds_of_the_file_are_taken_as_they_are(
    photos: Path, store: str, small_encoder: tuple[Path, EncoderRef], tmp_path: Path
) -> None:
    lines = (photos / "pairs.csv").read_text().splitlines()
    rows = [f"{line},{n % 3 + 5}" for n, line in enumerate(lines[1:])]
    (tmp_path / "pairs.csv").write_text("\n".join([lines[0] + ",fold", *rows]))
    evaluation = measured(tmp_path / "pairs.csv", photos, store, small_encoder[1])
    assert evaluation.folds_from == "file"
    assert [(fold.fold, fold.pairs) for fold in evaluation.folds.folds] == [(5, 16), (6, 16), (7, 16)]
    (tmp_path / "pairs.csv").write_text("\n".join([lines[0] + ",fold", *(f"{line},1" for line in lines[1:])]))
    with pytest.raises(LookalikeError, match="all pairs are in fold 1: wanted at least two folds"):
        measured(tmp_path / "pairs.csv", photos, store, small_encoder[1])


def test_few_pairs_give_few_folds_and_too_few_are_refused(
    photos: Path, store: str, small_encoder: tuple[Path, EncoderRef], tmp_path: Path
) -> None:
    lines = (photos / "pairs.csv").read_text().splitlines()
    few = [lines[0], *lines[1:4], *lines[25:40]]
    (tmp_path / "pairs.csv").write_text("\n".join(few))
    evaluation = measured(tmp_path / "pairs.csv", photos, store, small_encoder[1])
    assert [fold.pairs for fold in evaluation.folds.folds] == [6, 6, 6]
    (tmp_path / "pairs.csv").write_text("\n".join(few[:2] + few[4:]))
    with pytest.raises(LookalikeError, match="there are 1 pairs of one person and 15 of two: wanted at least 2"):
        measured(tmp_path / "pairs.csv", photos, store, small_encoder[1])


def test_without_people_there_is_no_retrieval_but_a_reason(
    photos: Path, store: str, small_encoder: tuple[Path, EncoderRef], tmp_path: Path
) -> None:
    text = (photos / "pairs.csv").read_text()
    turned = text.replace(",1\n", ",2\n").replace(",0\n", ",1\n").replace(",2\n", ",0\n")
    (tmp_path / "pairs.csv").write_text(turned)
    evaluation = measured(tmp_path / "pairs.csv", photos, store, small_encoder[1])
    assert evaluation.people is evaluation.retrieval is None
    assert evaluation.retrieval_reason == (
        "nobody knows who the photos show: folders are not people: on line 2 two people lie in one folder"
    )


def test_real_photos_are_told_apart_by_a_real_encoder(real_data: Path, tmp_path: Path) -> None:
    lines = (real_data / "lfw" / "pairsDevTest.txt").read_text().splitlines()[1:]
    chosen = [*lines[:500:25], *lines[500::25]]
    (tmp_path / "pairs.txt").write_text(f"{len(chosen) // 2}\n" + "\n".join(chosen) + "\n")
    evaluation, _ = evaluate_encoder(
        str(tmp_path / "pairs.txt"),
        images=str(real_data / "lfw" / "images"),
        store=str(tmp_path / "store"),
        encoder=str(real_data / "weights" / "mobilefacenet.onnx"),
        workers=2,
    )
    assert (evaluation.pairs, evaluation.coverage, len(evaluation.folds.folds)) == (40, 1, 10)
    assert evaluation.folds.mean >= 0.95
    assert evaluation.auc >= 0.98
    assert evaluation.retrieval is not None
    assert evaluation.retrieval.precision_at[1] >= 0.9
