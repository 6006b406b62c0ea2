from itertools import combinations

import numpy as np
import pytest

from models import retrieval
from models.metrics import precision_at_1
from models.retrieval import RankOne, measure_retrieval


def cosines(emb: np.ndarray) -> np.ndarray:
    unit = emb / np.linalg.norm(emb, axis=1, keepdims=True)
    return np.array([[float(a @ b) for b in unit] for a in unit])


def slow_precision_and_map(emb: np.ndarray, labels: list[str], k: int) -> tuple[float, float]:
    near, precisions, averages = cosines(emb), [], []
    for i in range(len(emb)):
        others = sorted((j for j in range(len(emb)) if j != i), key=lambda j: -near[i][j])
        relevant = [labels[j] == labels[i] for j in others]
        if not any(relevant):
            continue
        precisions.append(sum(relevant[:k]) / k)
        hits, total = 0, 0.0
        for rank, right in enumerate(relevant, start=1):
            hits += right
            total += right * hits / rank
        averages.append(total / hits)
    return float(np.mean(precisions)), float(np.mean(averages))


def slow_rank_one(emb: np.ndarray, labels: list[str], gallery: int) -> float:
    """Every gallery of one wanted face and so many strangers, one after another."""
    near, of_query = cosines(emb), []
    for i in range(len(emb)):
        mates = [j for j in range(len(emb)) if j != i and labels[j] == labels[i]]
        strangers = [j for j in range(len(emb)) if labels[j] != labels[i]]
        shares = []
        for mate in mates:
            found = [all(near[i][j] < near[i][mate] for j in chosen) for chosen in combinations(strangers, gallery - 1)]
            shares.append(np.mean(found))
        if shares:
            of_query.append(np.mean(shares))
    return float(np.mean(of_query))


def drawn(seed: int, *, faces: int = 13, people: int = 5) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = [f"p{n}" for n in rng.integers(0, people, faces)] + ["alone"]
    centres = {label: rng.normal(size=6) for label in labels}
    emb = np.array([centres[label] + rng.normal(size=6) for label in labels])
    return emb * rng.uniform(0.1, 9, (len(emb), 1)), labels


@pytest.mark.parametrize("seed", range(4))
def test_precision_at_k_and_average_precision_are_those_of_a_double_loop(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "CHUNK_CELLS", 60)  # several chunks
    emb, labels = drawn(seed, faces=30, people=8)
    found = measure_retrieval(emb, labels, ks=(1, 3, 10, 500))
    for k in (1, 3, 10):
        precision, mean = slow_precision_and_map(emb, labels, k)
        assert found.precision_at[k] == pytest.approx(precision)
        assert found.mean_average_precision == pytest.approx(mean)
    assert list(found.precision_at) == [1, 3, 10]  # 500 nearest others do not exist
    assert found.precision_at[1] == pytest.approx(precision_at_1(emb, labels))
    assert (found.faces, found.people) == (31, len(set(labels)))


@pytest.mark.parametrize("seed", range(3))
def test_rank_one_is_the_mean_over_every_gallery_there_is(seed: int) -> None:
    emb, labels = drawn(seed)
    found = measure_retrieval(emb, labels, galleries=(2, 3, 5, 1000))
    strangers = min(sum(other != label for other in labels) for label in labels if labels.count(label) > 1)
    assert [point.gallery for point in found.rank_one] == [2, 3, 5, strangers + 1]
    for point in found.rank_one:
        assert point.accuracy == pytest.approx(slow_rank_one(emb, labels, point.gallery))


def test_rank_one_falls_as_the_gallery_grows_and_is_chance_for_noise() -> None:
    rng = np.random.default_rng(0)
    found = measure_retrieval(rng.normal(size=(400, 64)), np.repeat(np.arange(200), 2), galleries=(2, 10, 100))
    shares = [point.accuracy for point in found.rank_one]
    assert shares == sorted(shares, reverse=True)
    for point in found.rank_one[:2]:
        assert point.accuracy == pytest.approx(1 / point.gallery, abs=0.03)


def test_a_stranger_who_is_as_near_counts_against() -> None:
    emb = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8], [0.0, 1.0]])
    found = measure_retrieval(emb[[0, 1, 2]], ["a", "a", "b"])
    assert found.rank_one == (RankOne(2, 0.0),)


def test_the_best_possible_precision_is_that_of_the_person_s_own_photos() -> None:
    emb = np.array([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1], [0, 1, 0.2], [0, 0, 1]])
    found = measure_retrieval(emb, ["a", "a", "b", "b", "b", "c"], ks=(1, 2, 5))
    assert found.queries == 5
    assert found.possible_at == found.precision_at == pytest.approx({1: 1, 2: 0.8, 5: 0.32})
    assert found.mean_average_precision == 1


def test_more_queries_than_wanted_are_drawn_by_the_seed() -> None:
    emb, labels = drawn(0, faces=60)
    few = measure_retrieval(emb, labels, max_queries=7)
    assert (few.queries, few.faces) == (7, 61)
    assert few == measure_retrieval(emb, labels, max_queries=7, seed=0)
    assert few != measure_retrieval(emb, labels, max_queries=7, seed=1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b", "c"], "got 3 of 3 people, wanted two people, one with two faces"),
        (["a", "a", "a"], "got 3 of 1 people"),
        (["a"], r"embeddings \(3, 3\) and labels \(1,\)"),
    ],
)
def test_faces_without_anything_to_find_are_refused(labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_retrieval(np.eye(3), labels)
