import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models.calibration import calibration_error, fit_beta, posterior, reliability
from models.same_person import CELLS, LabelledPairs, calibrate, cell_cosines, count_cells, false_accept_table, grade


def drawn(seed: int, pairs: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Cosines whose log ratio is known: with x = (1 + c) / 2, same ~ Beta(8, 3) and different ~ Beta(3, 4)."""
    rng = np.random.default_rng(seed)
    return 2 * rng.beta(8, 3, pairs) - 1, 2 * rng.beta(3, 4, pairs) - 1


def test_newton_finds_what_no_small_step_betters() -> None:
    same, different = drawn(0, 500)
    fitted = fit_beta(same, different)

    def ratio(cosine: float, rise: float, fall: float, shift: float) -> float:
        return rise * math.log((1 + cosine) / 2) - fall * math.log((1 - cosine) / 2) + shift

    def loss(*parameters: float) -> float:
        total = 0.0
        for prior in (0.5, 0.01, 0.0001):
            odds = math.log(prior / (1 - prior))
            mine = sum(math.log1p(math.exp(-ratio(c, *parameters) - odds)) for c in same) * prior / len(same)
            mine += (
                sum(math.log1p(math.exp(ratio(c, *parameters) + odds)) for c in different)
                * (1 - prior)
                / len(different)
            )
            total += mine / -(prior * math.log(prior) + (1 - prior) * math.log(1 - prior))
        return total

    best = loss(fitted.rise, fitted.fall, fitted.shift)
    for step in (-0.02, 0.02):
        assert loss(max(fitted.rise + step, 0), fitted.fall, fitted.shift) >= best - 1e-9
        assert loss(fitted.rise, max(fitted.fall + step, 0), fitted.shift) >= best - 1e-9
        assert loss(fitted.rise, fitted.fall, fitted.shift + step) >= best - 1e-9


def test_at_even_odds_it_is_the_logistic_regression_that_scikit_learn_finds() -> None:
    same, different = drawn(8, 2_000)
    fitted = fit_beta(same, different[:1_500], priors=(0.5,))
    x = (1 + np.concatenate([same, different[:1_500]])) / 2
    truth = np.arange(len(x)) < len(same)
    peer = LogisticRegression(C=np.inf, tol=1e-10, class_weight="balanced", max_iter=1_000)
    peer.fit(np.stack([np.log(x), -np.log1p(-x)], axis=1), truth)
    assert [fitted.rise, fitted.fall] == pytest.approx(peer.coef_[0].tolist(), abs=1e-3)
    assert fitted.shift == pytest.approx(float(peer.intercept_[0]), abs=1e-3)


def test_probabilities_of_pairs_it_was_not_fitted_on_come_true() -> None:
    fitted = fit_beta(*drawn(1))
    same, different = drawn(2)
    for share in (0.5, 0.1, 0.01):  # the prior is corrected, not learnt
        few = same[: int(len(different) * share / (1 - share))]
        p = posterior(fitted.log_ratio(np.concatenate([few, different])), share)
        truth = np.arange(len(p)) < len(few)
        assert calibration_error(reliability(p, truth)) < 0.02


def test_the_error_of_a_liar_is_how_much_he_lies() -> None:
    rows = reliability([0.9, 0.9, 0.9, 0.9], [True, True, False, False])
    assert calibration_error(rows) == pytest.approx(0.4)
    assert [row.pairs for row in rows] == [4]


def test_a_ratio_never_falls_where_the_cosine_rises_and_claims_no_more_than_its_pairs_bear_out() -> None:
    same, different = drawn(3, 300)
    ratios = fit_beta(same, different).log_ratio(np.linspace(-1, 1, 501))
    assert np.all(np.diff(ratios) >= 0)
    assert ratios.max() <= np.log(100) + 1e-6
    assert ratios.min() >= -np.log(100) - 1e-6


def test_pairs_counted_by_cells_give_the_fit_of_the_pairs_themselves() -> None:
    same, different = drawn(4)
    by_cell = fit_beta(same, cell_cosines(), counts_D=count_cells(different))
    at = np.linspace(-0.5, 0.9, 50)
    np.testing.assert_allclose(by_cell.log_ratio(at), fit_beta(same, different).log_ratio(at), atol=0.02)


@pytest.mark.parametrize(("same", "different"), [([0.5] * 3, [0.1] * 9), ([0.5] * 9, [0.1] * 3)])
def test_too_few_pairs_are_refused(same: list[float], different: list[float]) -> None:
    with pytest.raises(ValueError, match="wanted 4 of each"):
        fit_beta(same, different)


def test_a_cosine_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"wanted cosines in \[-1, 1\]"):
        fit_beta([0.5] * 9, [float("nan")] * 9)


def pairs(seed: int) -> LabelledPairs:
    same, different = drawn(seed)
    return LabelledPairs(same=same, different=count_cells(different), people=100, faces=300)


def test_more_faces_make_the_same_cosine_less_sure_and_strangers_more() -> None:
    calibration = calibrate(pairs(5), pairs(6), faces_a_person=3)
    sure = [float(calibration.same_person([0.6], searched=n)[0]) for n in (10, 1_000, 100_000)]
    strangers = [float(calibration.false_hits([0.6], searched=n)[0]) for n in (10, 1_000, 100_000)]
    assert sure == sorted(sure, reverse=True)
    assert strangers[1] == pytest.approx(100 * strangers[0])
    measured = float((drawn(7)[1] >= 0.6).mean())
    assert strangers[1] == pytest.approx(1_000 * measured, rel=0.15)
    assert calibration.checked_on.ece < 0.02


def test_a_table_of_false_accepts_counts_as_a_plain_count_does() -> None:
    different = np.array([-0.5, 0.1, 0.1, 0.3, 0.9, 0.95])
    for cosine, share in false_accept_table(count_cells(different)):
        assert share == pytest.approx((different >= cosine).mean(), abs=1e-3)
    assert count_cells(different).sum() == 6
    assert len(count_cells([1.0, -1.0])) == CELLS


def test_words_follow_the_probability() -> None:
    assert grade(None) == "uncalibrated"
    assert grade(0.995) == "almost certainly the same person"
    assert grade(0.5) == "could be either"
    assert grade(0.0) == "very likely another person"
