from statistics import NormalDist

import numpy as np
import pytest

from models.roc import roc_curve
from models.tar_at_far import tar_at_far, wilson_interval

FARS = (0.1, 0.01, 0.001, 0.0001)


def drawn(rng: np.random.Generator, *, alike: int, unlike: int, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    scores = np.concatenate([rng.normal(apart, 1, alike), rng.normal(0, 1, unlike)])
    return scores, np.arange(alike + unlike) < alike


@pytest.mark.parametrize("digits", [9, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_with_so_few_false_accepts_accepts_more(seed: int, digits: int) -> None:
    scores, same = drawn(np.random.default_rng(seed), alike=60, unlike=110)
    scores = np.round(scores, digits)
    curve = roc_curve(scores, same)
    for row in tar_at_far(scores, same, fars=(0.3, 0.1, 0.01)):
        assert row.tar == pytest.approx(curve.tar[curve.far <= row.far + 1e-12].max())
        assert row.tar == pytest.approx(np.mean(scores[same] > row.threshold))
        assert row.false_accepts == np.sum(scores[~same] > row.threshold) <= row.far * 110
        assert row.low <= row.tar <= row.high


def test_what_so_few_pairs_cannot_show_is_not_made_up() -> None:
    scores, same = drawn(np.random.default_rng(0), alike=500, unlike=500)
    tenth, hundredth, *others = tar_at_far(scores, same, fars=FARS)
    assert tenth.reason is hundredth.reason is None
    assert [row.reason for row in others] == [
        "needs at least 1,000 pairs of two people, there are 500",
        "needs at least 10,000 pairs of two people, there are 500",
    ]
    for row in others:
        assert row.tar is row.low is row.high is row.threshold is row.false_accepts is None


@pytest.mark.parametrize(("unlike", "measured"), [(9, 0), (10, 1), (999, 2), (1000, 3), (2900, 3)])
def test_a_far_is_measured_from_one_false_accept_on(unlike: int, measured: int) -> None:
    scores, same = drawn(np.random.default_rng(0), alike=20, unlike=unlike)
    rows = tar_at_far(scores, same, fars=FARS)
    assert sum(row.tar is not None for row in rows) == measured


def test_the_bootstrap_is_that_of_resampled_pairs() -> None:
    scores, same = drawn(np.random.default_rng(3), alike=80, unlike=200)
    (row,) = tar_at_far(scores, same, fars=(0.05,))
    rng = np.random.default_rng(9)
    tars = []
    for _ in range(4000):
        alike, unlike = rng.choice(scores[same], 80), rng.choice(scores[~same], 200)
        threshold = np.sort(unlike)[::-1][10]
        tars.append(np.mean(alike > threshold))
    low, high = np.quantile(tars, [0.025, 0.975])
    floor, ceiling = wilson_interval(round(row.tar * 80), 80)
    assert row.low == pytest.approx(min(low, floor), abs=0.02)
    assert row.high == pytest.approx(max(high, ceiling), abs=0.02)
    assert high - low > ceiling - floor  # the threshold's share is in it


@pytest.mark.parametrize(("alike", "unlike", "far"), [(300, 300, 0.1), (300, 500, 0.01), (100, 3000, 0.01)])
def test_the_interval_holds_the_truth_about_19_times_in_20(alike: int, unlike: int, far: float) -> None:
    normal = NormalDist()
    truth = 1 - normal.cdf(normal.inv_cdf(1 - far) - 2)
    held = 0
    for seed in range(200):
        scores, same = drawn(np.random.default_rng(seed), alike=alike, unlike=unlike)
        (row,) = tar_at_far(scores, same, fars=(far,))
        held += row.low <= truth <= row.high
    assert held >= 182  # 19 in 20 is 190; fewer than 182 would happen once in 200 times


def test_an_interval_never_shrinks_to_a_point() -> None:
    scores, same = drawn(np.random.default_rng(0), alike=100, unlike=100, apart=50)
    (row,) = tar_at_far(scores, same, fars=(0.1,))
    assert (row.tar, row.high) == (1, 1)
    assert row.low == pytest.approx(100 / (100 + 1.96**2), abs=1e-4)


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 10), (50, 100), (497, 500), (10, 10)])
def test_wilson_s_ends_are_where_the_score_test_turns(hits: int, trials: int) -> None:
    share = hits / trials
    for end in wilson_interval(hits, trials):
        assert (share - end) ** 2 == pytest.approx(1.959963984540054**2 * end * (1 - end) / trials, abs=1e-9)


def test_the_same_seed_gives_the_same_interval() -> None:
    scores, same = drawn(np.random.default_rng(0), alike=50, unlike=100)
    assert tar_at_far(scores, same, fars=FARS) == tar_at_far(scores, same, fars=FARS, seed=0)


@pytest.mark.parametrize("far", [0.0, 1.0, -0.1])
def test_a_far_out_of_range_is_refused(far: float) -> None:
    with pytest.raises(ValueError, match=f"fars: got {far}, wanted each above 0 and below 1"):
        tar_at_far([0.1, 0.2], [True, False], fars=[0.1, far])
    with pytest.raises(ValueError, match="with both kinds"):
        tar_at_far([0.1, 0.2], [True, True], fars=[0.1])
