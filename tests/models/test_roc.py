import numpy as np
import pytest

from models.roc import roc_curve


def slow_auc(scores: np.ndarray, same: np.ndarray) -> float:
    """Mann-Whitney: every pair of one person against every pair of two."""
    wins = 0.0
    for one in scores[same]:
        for two in scores[~same]:
            wins += 1.0 if one > two else 0.5 if one == two else 0.0
    return wins / (same.sum() * (~same).sum())


def drawn(seed: int, *, digits: int = 6, pairs: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = rng.random(pairs) < 0.45
    return np.round(rng.normal(size=pairs) + same, digits), same


@pytest.mark.parametrize("digits", [6, 1, 0])
@pytest.mark.parametrize("seed", range(4))
def test_the_area_is_the_mann_whitney_statistic_with_ties_a_half(seed: int, digits: int) -> None:
    scores, same = drawn(seed, digits=digits)
    assert roc_curve(scores, same).auc == pytest.approx(slow_auc(scores, same), abs=1e-12)


@pytest.mark.parametrize("digits", [6, 0])
def test_every_point_counts_what_its_threshold_accepts(digits: int) -> None:
    scores, same = drawn(1, digits=digits)
    curve = roc_curve(scores, same)
    assert len(curve.far) == len(np.unique(scores)) + 1
    for threshold, far, tar in zip(curve.thresholds, curve.far, curve.tar, strict=True):
        assert far == pytest.approx(np.mean(scores[~same] >= threshold))
        assert tar == pytest.approx(np.mean(scores[same] >= threshold))
    assert (curve.far[0], curve.tar[0], curve.far[-1], curve.tar[-1]) == (0, 0, 1, 1)


def test_perfect_wrong_and_blind_scores_have_the_areas_they_should() -> None:
    same = [True, True, False, False]
    assert roc_curve([0.9, 0.8, 0.2, 0.1], same).auc == 1
    assert roc_curve([0.1, 0.2, 0.8, 0.9], same).auc == 0
    assert roc_curve([0.5] * 4, same).auc == 0.5


def test_the_equal_error_lies_where_both_errors_meet() -> None:
    assert roc_curve([0.9, 0.8, 0.2, 0.1], [True, True, False, False]).equal_error.rate == 0
    assert roc_curve([0.1, 0.2, 0.8, 0.9], [True, True, False, False]).equal_error.rate == 1
    assert roc_curve([0.5] * 4, [True, True, False, False]).equal_error.rate == 0.5
    # FAR 1/4 and FRR 1/2 at 0.7, FAR 1/2 and FRR 1/4 at 0.6: they meet half-way
    scores = [0.9, 0.8, 0.6, 0.1, 0.7, 0.6, 0.3, 0.2]
    found = roc_curve(scores, [True] * 4 + [False] * 4).equal_error
    assert found.rate == pytest.approx(0.375)
    assert found.threshold == pytest.approx(0.65)


@pytest.mark.parametrize("seed", range(4))
def test_the_equal_error_is_between_the_errors_around_it(seed: int) -> None:
    scores, same = drawn(seed, pairs=400)
    found = roc_curve(scores, same).equal_error
    for far, miss in [
        (np.mean(scores[~same] >= t), np.mean(scores[same] < t))
        for t in (found.threshold - 0.02, found.threshold + 0.02)
    ]:
        assert min(far, miss) - 1e-9 <= found.rate <= max(far, miss) + 1e-9


def test_a_thinned_curve_keeps_its_ends_and_its_shape() -> None:
    scores, same = drawn(2, pairs=20_000)
    curve = roc_curve(scores, same)
    thin = curve.thinned(300)
    assert len(thin.far) <= 300
    assert (thin.far[0], thin.far[-1], thin.tar[-1]) == (0, 1, 1)
    assert thin.auc == pytest.approx(curve.auc, abs=0.002)
    assert set(zip(thin.far, thin.tar, strict=True)) <= set(zip(curve.far, curve.tar, strict=True))


@pytest.mark.parametrize("digits", [6, 1])
def test_a_curve_of_few_corners_loses_only_what_lies_on_a_straight_line(digits: int) -> None:
    scores, same = drawn(0, pairs=1000, digits=digits)
    curve = roc_curve(scores + 2 * same, same)
    thin = curve.thinned(300)
    assert 2 < len(thin.far) < len(curve.far)
    assert thin.auc == pytest.approx(curve.auc, abs=1e-12)
    steps = np.unique(curve.far)
    np.testing.assert_allclose(
        [thin.tar[thin.far <= far].max() for far in thin.far], [curve.tar[curve.far <= far].max() for far in thin.far]
    )
    assert set(thin.far) <= set(steps)


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([0.1, 0.2], [True, True], "got 2 of one person and 0 of two"),
        ([0.1, 0.2], [False, False], "got 0 of one person and 2 of two"),
        ([0.1], [True, False], r"got scores \(1,\) and same \(2,\)"),
        ([0.1, np.nan], [True, False], "without NaN"),
    ],
)
def test_pairs_without_a_curve_are_refused(scores: list[float], same: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        roc_curve(scores, same)
