import itertools
import statistics

import numpy as np
import pytest

from models.verification import CrossValidation, Fold, cross_validate


def slow_accuracies(scores: list[float], same: list[bool], folds: list[int]) -> list[float]:
    """Every threshold tried on nine folds, the best one (half-way to its neighbour) counted on the tenth."""
    accuracies = []
    for fold in sorted(set(folds)):
        rest = [n for n in range(len(scores)) if folds[n] != fold]
        values = sorted({scores[n] for n in rest}, reverse=True)
        edges = [np.inf, *[(a + b) / 2 for a, b in itertools.pairwise(values)], -np.inf]
        best, threshold = -1, np.inf
        for edge in edges:
            right = sum((scores[n] >= edge) == same[n] for n in rest)
            if right > best:
                best, threshold = right, edge
        inside = [n for n in range(len(scores)) if folds[n] == fold]
        accuracies.append(sum((scores[n] >= threshold) == same[n] for n in inside) / len(inside))
    return accuracies


@pytest.mark.parametrize("seed", range(6))
def test_each_fold_is_tested_with_the_threshold_of_the_others_as_a_double_loop_finds_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    same = rng.random(90) < 0.5
    scores = np.round(rng.normal(size=90) + 1.2 * same, 1 if seed % 2 else 6)  # odd seeds: many equal scores
    folds = rng.integers(3, 8, 90)
    tested = cross_validate(scores, same, folds)
    wanted = slow_accuracies(scores.tolist(), same.tolist(), folds.tolist())
    assert [fold.accuracy for fold in tested.folds] == pytest.approx(wanted)
    assert [fold.fold for fold in tested.folds] == [3, 4, 5, 6, 7]
    assert sum(fold.pairs for fold in tested.folds) == 90
    assert tested.mean == pytest.approx(statistics.mean(wanted))
    assert tested.std == pytest.approx(statistics.stdev(wanted))  # n - 1 below the line
    assert tested.standard_error == pytest.approx(statistics.stdev(wanted) / 5**0.5)


def test_a_fold_s_own_pairs_have_no_say_in_its_threshold() -> None:
    scores = [0.9, 0.1, 0.8, 0.2, 0.15, 0.05]
    same = [True, False, True, False, True, False]  # fold 2 would be told rightly by a threshold of 0.1 only
    tested = cross_validate(scores, same, [0, 0, 1, 1, 2, 2])
    assert tested.folds[2].threshold == pytest.approx(0.5)
    assert tested.folds[2].accuracy == 0.5


def test_folds_weigh_the_same_whatever_their_size() -> None:
    folds = CrossValidation((Fold(0, 1000, 0.5, 1.0), Fold(1, 10, 0.5, 0.5)))
    assert folds.mean == 0.75


@pytest.mark.parametrize("folds", [[1, 1], [0, 1, 2], []])
def test_folds_that_test_nothing_are_refused(folds: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"folds: got scores \(2,\), folds \({len(folds)},\)"):
        cross_validate([0.1, 0.9], [False, True], folds)
