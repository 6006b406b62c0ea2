"""An index whose heavy parts torch computes, here on the processor as it would on a GPU. What FAISS and numpy make is the oracle."""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.face_vectors import FaceVectors
from models.recall import recalls
from store.errors import LookalikeError
from store.index_choice import KINDS, Candidate, IndexBudget
from store.index_file import build_index
from store.index_search import SearchSettings, search
from store.index_train import sample_size
from store.index_trial import open_mapped
from tasks.steps.choose_index import build_chosen
from tasks.steps.face_blocks import Gallery
from tasks.steps.fill_index import BuiltIndex
from tasks.steps.held_out_queries import HeldOutQueries
from tasks.steps.held_out_truth import searched, truth_parquet
from tasks.steps.index_device import centres_for, screen_for
from tasks.steps.measure_index import Questions

N, D, LISTS = 8_000, 64, 128
TORCH = "cpu:0"
DRAWN = FaceVectors(N, D)
VECTORS = np.concatenate([vectors for _, vectors in DRAWN.stream()])
IDS = np.sort(np.random.default_rng(1).choice(2**62, N, replace=False).astype(np.int64))
EVERYBODY = Gallery(IDS, VECTORS)
QUERIES = DRAWN.queries(600)
WITH_LISTS = ("lists", "lists-sq8", "lists-rabitq")


@pytest.fixture(autouse=True)
def little_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.steps.index_device._WORTH_COMPARING", 0)
    monkeypatch.setattr("tasks.steps.index_device._WORTH_TRAINING", 0)


@cache
def asked() -> Questions:
    return Questions.of(QUERIES, EVERYBODY, kept=40)


def recall(kind: str, centres: npt.NDArray[np.float32] | None) -> float:
    index = build_index(KINDS[kind](N, D, LISTS), IDS, VECTORS, centres)
    settings = SearchSettings(nprobe=64, refine=100 if kind == "lists-rabitq" else None)
    found = search(index, QUERIES, k=10, settings=settings)[1]
    return float(recalls(found, asked().near, k=10).mean())


@pytest.mark.parametrize("kind", WITH_LISTS)
def test_an_index_of_lists_trained_by_torch_finds_as_much_as_one_trained_by_faiss(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.index_train._SAMPLE_LEAST", 0)  # both are trained on as many faces a list
    candidate = KINDS[kind](N, D, LISTS)
    centres = centres_for(candidate, VECTORS[: sample_size(candidate)], device=TORCH)
    by_faiss = recall(kind, None)
    assert by_faiss > 0.93
    assert recall(kind, centres) == pytest.approx(by_faiss, abs=0.005)


def test_only_kinds_with_lists_want_centres_and_faiss_finds_them_on_the_processor() -> None:
    kinds = {kind: KINDS[kind](N, D, 16) for kind in KINDS}
    wanted = {kind for kind, one in kinds.items() if centres_for(one, VECTORS[:300], device=TORCH) is not None}
    assert wanted == set(WITH_LISTS)
    assert all(centres_for(one, VECTORS[:300], device="cpu") is None for one in kinds.values())


def test_what_is_not_worth_waking_a_gpu_for_stays_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    faces = np.zeros((32_768, 512), np.float32)
    no_gpu_would_do = "a device that is none"
    assert centres_for(KINDS["lists"](N, D, LISTS), VECTORS, device=no_gpu_would_do) is None
    asked_P, _ = screen_for(no_gpu_would_do)(QUERIES, VECTORS[:4], np.full(len(QUERIES), -np.inf, np.float32), 1)
    assert len(asked_P) >= len(QUERIES)
    with pytest.raises(Exception, match="a device that is none"):
        centres_for(KINDS["lists"](50_000, 512, 1_024), np.zeros((40_960, 512), np.float32), device=no_gpu_would_do)
    with pytest.raises(Exception, match="a device that is none"):
        screen_for(no_gpu_would_do)(np.zeros((256, 512), np.float32), faces, np.zeros(256, np.float32), 1)


def test_too_few_faces_are_left_to_be_refused_by_the_training() -> None:
    assert centres_for(KINDS["lists"](N, D, LISTS), VECTORS[: LISTS - 1], device=TORCH) is None


def test_the_truth_is_the_same_file_on_another_device() -> None:
    made_of = HeldOutQueries(IDS[:64], QUERIES[:64])
    files = [
        truth_parquet(
            [searched(purpose, made_of, EVERYBODY, device=device) for purpose in ("tune", "gate")], dimension=D
        )
        for device in ("cpu", TORCH)
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize("only", ["scan", "lists-sq8"])
def test_a_whole_build_on_another_device_has_the_same_truth_and_is_as_right(
    only: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.index_choice.FEWEST_FOR_CODES", 1_000)
    monkeypatch.setattr("tasks.steps.choose_index._TRIALS", 1)
    monkeypatch.setattr("store.index_choice.KINDS", {kind: KINDS[kind] for kind in ("exact", only)})
    budget = IndexBudget(memory_bytes=1_200_000)  # exact search holds 2.1 MB
    made: dict[str, BuiltIndex] = {}
    for device in ("cpu", TORCH):
        folder = tmp_path / device.replace(":", "-")
        folder.mkdir()
        made[device] = build_chosen(EVERYBODY, budget=budget, queries=lambda: QUERIES, folder=folder, device=device)
    one, other = made["cpu"], made[TORCH]
    assert one.key == other.key
    assert one.near is not None
    assert other.near is not None
    assert one.near.cosines.tobytes() == other.near.cosines.tobytes()
    assert one.near.ids.tobytes() == other.near.ids.tobytes()
    assert (one.path.read_bytes() == other.path.read_bytes()) is (only == "scan")
    same = SearchSettings.of(one.parameters)
    found = [
        recalls(search(open_mapped(str(index.path)), QUERIES, k=10, settings=same)[1], asked().near, k=10).mean()
        for index in (one, other)
    ]
    assert found[1] > found[0] - 0.005


def test_a_missing_gpu_is_a_sentence_of_ours() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU at hand")
    said = "device cuda: torch sees no GPU here; use the processor, or a torch built for this GPU"
    candidate: Candidate = KINDS["lists"](N, D, 16)
    with pytest.raises(LookalikeError, match=said):
        centres_for(candidate, VECTORS[:300], device="cuda")
    with pytest.raises(LookalikeError, match=said):
        screen_for("cuda")(QUERIES[:2], VECTORS[:9], np.zeros(2, np.float32), 1)
