"""An index of vectors drawn like faces: which one is built, tuned and proved. Exact search is the oracle."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.face_vectors import FaceVectors
from store.errors import ArtifactError, GateRefusedError, VersionError
from store.fingerprints import sha256_hex
from store.index_choice import IndexBudget
from store.index_file import load_index
from store.index_search import SearchSettings, search
from store.index_stream import WrittenIndex
from store.manifest import IndexRecord
from tasks.steps.choose_index import build_chosen
from tasks.steps.face_blocks import Gallery
from tasks.steps.fill_index import BuiltIndex, build_as_recorded
from tasks.steps.held_out_queries import HeldOutQueries
from tasks.steps.held_out_truth import HeldOut, searched
from tasks.steps.measure_index import Questions, tune
from tasks.steps.prove_index import noisy_queries, pass_gate, prove_approximate, prove_exact

Vectors = npt.NDArray[np.float32]
Build = Callable[..., BuiltIndex]
N, D = 2_000, 32
DRAWN = FaceVectors(N, D)
VECTORS = np.concatenate([vectors for _, vectors in DRAWN.stream()])
IDS = np.sort(np.random.default_rng(1).choice(2**62, N, replace=False).astype(np.int64))
QUERIES = DRAWN.queries(160)
NOT_EXACT = IndexBudget(memory_bytes=200_000)  # exact search holds 272,000


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.index_choice.FEWEST_FOR_CODES", 1_000)


EVERYBODY = Gallery(IDS, VECTORS)


@pytest.fixture
def built(tmp_path: Path) -> Build:
    def build(budget: IndexBudget = NOT_EXACT, queries: Callable[[], Vectors] = lambda: QUERIES[::2]) -> BuiltIndex:
        return build_chosen(EVERYBODY, budget=budget, queries=queries, folder=tmp_path)

    return build


def asked_at_the_gate(faces: Gallery = EVERYBODY) -> HeldOut:
    return searched("gate", HeldOutQueries(IDS[: len(QUERIES) // 2], QUERIES[1::2]), faces)


def proof(index: BuiltIndex) -> dict[str, Any]:
    return prove_approximate(opened(index), asked_at_the_gate(), SearchSettings.of(index.parameters))


def opened(index: BuiltIndex) -> Any:
    data = index.path.read_bytes()
    assert index.written == WrittenIndex(len(data), sha256_hex(data))
    return load_index(data, where="here")


def test_a_gallery_too_large_for_exact_search_gets_what_was_measured_to_be_right_enough(built: Build) -> None:
    index = built()
    assert index.parameters["kind"] in {"scan", "lists-sq8", "lists-rabitq"}
    assert index.why.startswith("approximate search: exact search among 2,000 faces of 32 dimensions holds 266 KiB")
    assert "on held-out queries" in index.why
    assert [one["kind"] for one in index.measured] == ["scan", "lists-sq8", "lists-rabitq"]
    assert all(point["recall_at_10"] <= 1 and point["p50_ms"] > 0 for one in index.measured for point in one["points"])
    metrics = proof(index)
    wanted = np.argsort(-(QUERIES[1::2] @ VECTORS.T), axis=1)[:, :10]
    found = search(opened(index), QUERIES[1::2], k=10, settings=SearchSettings.of(index.parameters))
    overlap = np.mean([len(set(IDS[a].tolist()) & set(b.tolist())) / 10 for a, b in zip(wanted, found[1], strict=True)])
    assert metrics["recall_at_10"] == pytest.approx(overlap, abs=1e-9)
    assert metrics["recall_at_10"] >= 0.95
    assert pass_gate(metrics, key=index.key) == {"recall_at_10": 0.95, "passed": True}


def test_a_filter_costs_no_recall(built: Build) -> None:
    proven = proof(built())
    filtered = proven["recall_at_10_filtered"]
    assert set(filtered) == {"0.1", "0.01"}
    assert 16 < proven["queries_at_100_and_filtered"] <= 32 < proven["queries"]
    assert min(filtered.values()) > 0.95


def test_an_index_that_finds_too_little_is_refused_by_the_gate_with_both_figures(built: Build) -> None:
    index = built()
    lazy = SearchSettings(nprobe=1, refine=1)
    metrics = prove_approximate(opened(index), asked_at_the_gate(), lazy)
    wrong = Gallery(IDS, VECTORS[::-1])
    with pytest.raises(
        GateRefusedError, match=r"recall@10 is 0\.\d{3}, wanted at least 0.95; the old version stays"
    ) as caught:
        pass_gate(prove_approximate(opened(index), asked_at_the_gate(wrong), lazy), key=index.key)
    assert caught.value.key == index.key
    assert caught.value.recall_at_10 < 0.2
    assert metrics["recall_at_10"] < proof(index)["recall_at_10"]


def test_a_small_gallery_stays_exact_and_makes_no_queries(built: Build) -> None:
    def never() -> Vectors:
        raise AssertionError

    index = built(IndexBudget(), never)
    assert (index.key, index.parameters, index.measured) == ("Flat", {}, ())
    assert index.why.startswith("exact search: 2,000 faces of 32 dimensions are compared in about")


def test_where_nothing_quicker_is_right_enough_exact_search_is_taken_and_it_says_so(
    built: Build,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.steps.measure_index._REFINE", (1.0,))
    monkeypatch.setattr("tasks.steps.choose_index._TRIALS", 1)
    index = built(IndexBudget(latency_ms=1e-6))
    assert index.key == "Flat"
    assert "but of what was measured nothing quicker reached recall@10 of 0.95: scan (PCA12" in index.why
    assert [one["kind"] for one in index.measured] == ["scan", "exact"]


def test_where_nothing_that_fits_is_right_enough_the_best_is_left_to_the_gate(
    built: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.steps.measure_index._REFINE", (1.0,))
    monkeypatch.setattr("tasks.steps.choose_index._TRIALS", 1)
    index = built()
    assert "nothing that fits is sure to reach recall@10 of 0.95" in index.why
    with pytest.raises(GateRefusedError, match=r"The index is PCA12,PQ6x4fs,Refine\(SQ8\), asked 80 queries"):
        pass_gate(proof(index), key=index.key)


def test_a_latency_that_nothing_meets_is_said_with_what_the_quickest_takes(built: Build) -> None:
    why = built(IndexBudget(memory_bytes=200_000, latency_ms=1e-6)).why
    assert "ms a query on one core, more than the 1e-06 ms wanted: nothing that was measured is quicker" in why


def test_a_gallery_larger_than_the_sample_is_tuned_again_as_a_whole(
    built: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.steps.choose_index._TRIAL_FACES", 1_200)
    index = built()
    assert [one["faces"] for one in index.measured] == [N, 1_200, 1_200, 1_200]
    assert "measured with 1,200 faces" in index.why
    assert proof(index)["recall_at_10"] >= 0.93


@pytest.mark.parametrize("budget", [IndexBudget(), NOT_EXACT])
@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_vector_that_is_none_is_refused_by_name(value: float, budget: IndexBudget, tmp_path: Path) -> None:
    vectors = VECTORS.copy()
    vectors[7] = value
    with pytest.raises(ArtifactError, match=rf"the embedding of face {IDS[7]} has length (nan|0), wanted 1"):
        build_chosen(Gallery(IDS, vectors), budget=budget, queries=lambda: QUERIES, folder=tmp_path)


def test_a_budget_that_nothing_meets_is_refused_before_anything_is_made(built: Build) -> None:
    with pytest.raises(VersionError, match="fits into 1000 bytes: the smallest, PCA12,PQ6x4fs,Refine"):
        built(IndexBudget(memory_bytes=1_000))


def record_of(index: BuiltIndex) -> IndexRecord:
    return IndexRecord(
        key=index.key, metric="inner_product", parameters=index.parameters, why=index.why, change="rebuilt", bytes=1,
        sha256="0" * 64, measured=list(index.measured),
    )  # fmt: skip


def test_without_some_faces_the_same_kind_is_made_of_the_others_and_asked_as_before(
    built: Build, tmp_path: Path
) -> None:
    index = built()
    left = np.flatnonzero(np.arange(N) % 10 > 0)
    those = Gallery(IDS[left], VECTORS[left])
    again = build_as_recorded(record_of(index), those, folder=tmp_path)
    assert again.parameters == index.parameters
    assert opened(again).ntotal == len(left)
    metrics = prove_approximate(opened(again), asked_at_the_gate(those), SearchSettings.of(again.parameters))
    assert metrics["recall_at_10"] >= 0.95


def test_where_too_few_are_left_they_are_searched_exactly(built: Build, tmp_path: Path) -> None:
    few = Gallery(IDS[:50], VECTORS[:50])
    again = build_as_recorded(record_of(built()), few, folder=tmp_path)
    assert (again.key, again.parameters, again.why) == ("Flat", {}, "exact search: too few faces are left to train on")
    assert prove_exact(opened(again), few)["recall_at_10"] == 1


def test_tuning_stops_at_the_least_effort_that_is_surely_enough(built: Build) -> None:
    index = built()
    asked = Questions.of(QUERIES[::2], EVERYBODY)
    best, points = tune(opened(index), asked, recall=0.95)
    assert best.least >= 0.95 > points[0].least
    assert best.recall > best.least
    assert best in points


def test_queries_for_an_exact_index_are_no_stored_vectors() -> None:
    nearest = (noisy_queries(EVERYBODY) @ VECTORS.T).max(axis=1)
    assert nearest.max() < 0.99


def test_faces_read_block_by_block_get_the_same_index_as_faces_in_memory(
    built: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Blocks:
        ids, dimension = IDS, D

        def blocks(self) -> Iterator[tuple[npt.NDArray[np.int64], Vectors]]:
            return ((rows, VECTORS[rows]) for rows in np.array_split(np.random.default_rng(3).permutation(N), 9))

        def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
            return VECTORS[rows]

    monkeypatch.setattr("tasks.steps.choose_index._TRIALS", 1)
    whole = built()
    (folder := tmp_path / "blocks").mkdir()
    index = build_chosen(Blocks(), budget=NOT_EXACT, queries=lambda: QUERIES[::2], folder=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["index.faiss"]
    assert (index.key, index.written.bytes) == (whole.key, whole.written.bytes)
    assert whole.near is not None
    assert index.near is not None
    assert np.array_equal(index.near.ids, whole.near.ids)
    settings = SearchSettings(refine=50)
    got, same = (search(opened(one), QUERIES, k=10, settings=settings)[1] for one in (index, whole))
    assert (got == same).mean() > 0.999
