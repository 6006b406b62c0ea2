import numpy as np
import pytest

from models import metrics
from models.metrics import best_threshold, precision_at_1, verification_accuracy

RNG = np.random.default_rng(0)


def slow_precision_at_1(emb: np.ndarray, labels: list[str]) -> float:
    right, asked = 0, 0
    for i in range(len(emb)):
        if labels.count(labels[i]) < 2:
            continue
        best, nearest = -2.0, -1
        for j in range(len(emb)):
            cosine = emb[i] @ emb[j] / (np.linalg.norm(emb[i]) * np.linalg.norm(emb[j]))
            if j != i and cosine > best:
                best, nearest = cosine, j
        asked += 1
        right += labels[nearest] == labels[i]
    return right / asked


@pytest.mark.parametrize("seed", range(5))
def test_precision_at_1_is_that_of_a_double_loop(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CHUNK_FACES", 7)
    rng = np.random.default_rng(seed)
    labels = [f"p{person}" for person in rng.integers(0, 9, 24)] + ["alone", "also alone"]
    centres = {label: rng.normal(size=6) for label in labels}
    emb = np.array([centres[label] + rng.normal(size=6) for label in labels]) * rng.uniform(0.1, 9, (26, 1))
    got = precision_at_1(emb, labels)
    assert got == pytest.approx(slow_precision_at_1(emb, labels))
    assert 0 < got < 1


def test_people_with_one_face_are_not_asked_for_but_stand_in_the_way() -> None:
    emb = np.array([[1, 0], [0.8, 0.6], [0.81, 0.59]])
    assert precision_at_1(emb[:2], ["ada", "ada"]) == 1
    assert precision_at_1(emb, ["ada", "ada", "bo"]) == 0


def test_precision_at_1_needs_somebody_with_two_faces() -> None:
    with pytest.raises(ValueError, match="got 3 of 3 people, wanted a person with at least two"):
        precision_at_1(np.eye(3), [0, 1, 2])
    with pytest.raises(ValueError, match="got 0 of 0 people"):
        precision_at_1(np.empty((0, 3)), [])
    with pytest.raises(ValueError, match=r"embeddings \(3, 3\) and labels \(2,\)"):
        precision_at_1(np.eye(3), [0, 1])


@pytest.mark.parametrize("seed", range(8))
def test_the_best_threshold_beats_every_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    same = rng.random(40) < 0.4
    scores = np.round(rng.normal(size=40) + same, 1)  # rounded: many scores are equal
    candidates = [-np.inf, *(np.unique(scores) - 0.05), np.inf]
    wanted = max(float(np.mean((scores >= threshold) == same)) for threshold in candidates)
    found = best_threshold(scores, same)
    assert found.accuracy == pytest.approx(wanted)
    assert np.mean((scores >= found.threshold) == same) == pytest.approx(wanted)
    assert verification_accuracy(scores, same) == found.accuracy


def test_the_threshold_lies_half_way_between_what_it_separates() -> None:
    assert best_threshold([0.9, 0.2, 0.6], [True, False, True]) == (pytest.approx(0.4), 1.0)


def test_pairs_of_one_kind_are_told_by_an_infinite_threshold() -> None:
    assert best_threshold([0.3, 0.1], [True, True]) == (-np.inf, 1.0)
    assert best_threshold([0.3, 0.1], [False, False]) == (np.inf, 1.0)


@pytest.mark.parametrize(("scores", "same"), [([], []), ([0.1, 0.2], [True]), ([np.nan], [True])])
def test_pairs_that_cannot_be_told_are_refused(scores: list[float], same: list[bool]) -> None:
    with pytest.raises(ValueError, match=r"pairs: got scores \("):
        best_threshold(scores, same)
