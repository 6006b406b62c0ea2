"""From a cosine to the probability that two faces are one person.

What is fitted is the likelihood ratio p(cosine | one person) / p(cosine | two people); the prior is kept apart from it, because
it is not the encoder's: among a hundred faces a given one is far more often the person asked about than among a million.

S pairs of one person, D of two, P of both, B bins.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "BINS",
    "PRIORS",
    "BetaCalibration",
    "LogRatio",
    "ReliabilityBin",
    "calibration_error",
    "fit_beta",
    "posterior",
    "reliability",
]

Floats = NDArray[np.float64]
Finite = Annotated[float, Field(allow_inf_nan=False)]

BINS = 15
"""Of equal width, over [0, 1]."""

PRIORS = (0.5, 1e-2, 1e-4)
"""At which a fit is to hold: that of a pair, and those of a face among hundreds and among ten thousand."""

_EDGE = 1e-6  # cosines are moved this far away from -1 and 1, where logarithms end
_STEPS = 100
_ENOUGH = 1e-10


class LogRatio(Protocol):
    """What says how many times likelier a cosine is between two faces of one person than between two people's."""

    def log_ratio(self, cosines_P: ArrayLike) -> Floats:
        """The natural logarithm of the likelihood ratio, float64 (P,), of cosines in [-1, 1], (P,)."""
        ...


class BetaCalibration(BaseModel):
    """The log likelihood ratio of a cosine: rise * ln x - fall * ln(1 - x) + shift, x = (1 + cosine) / 2, held between bounds.

    It never falls where the cosine rises.

    The bounds are what the pairs can bear out: among D pairs of two people none may lie above a cosine, and its share is still
    only known to be below about 3 / D.

    References:
        Kull, Silva Filho, Flach. Beta calibration: a well-founded and easily implemented improvement on logistic calibration for
        binary classifiers. AISTATS 2017. Bounds: Vergeer et al. Numerical likelihood ratios outputted by LR systems are often
        based on extrapolation: when to stop extrapolating? Science & Justice 2016; here by the rule of three, from counts.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    method: Literal["beta"] = "beta"
    rise: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    fall: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    shift: Finite
    lowest: Finite
    highest: Finite

    def log_ratio(self, cosines_P: ArrayLike) -> Floats:
        """The natural logarithm of the likelihood ratio, float64 (P,).

        Args:
            cosines_P: floating, (P,), in [-1, 1].
        """
        features_P3 = _features(np.asarray(cosines_P, np.float64))
        raw_P: Floats = features_P3 @ np.array([self.rise, self.fall, self.shift])
        return np.clip(raw_P, self.lowest, self.highest)


class ReliabilityBin(NamedTuple):
    """Pairs whose probability lies in one bin.

    Attributes:
        predicted: their mean probability.
        observed: the share of them that are one person.
        weight: the share of all pairs that lie in the bin, as weighted.
        pairs: how many there are.
    """

    predicted: float
    observed: float
    weight: float
    pairs: int


def fit_beta(
    same_S: ArrayLike,
    different_D: ArrayLike,
    *,
    counts_D: ArrayLike | None = None,
    priors: Sequence[float] = PRIORS,
) -> BetaCalibration:
    """Fit a calibration to the cosines of labelled pairs, however many there are of each kind.

    What is made small is the log-loss of the pairs' probabilities at each of the priors, measured against that of somebody who
    knows the prior only, and added up. At even odds alone a few pairs of one person with low cosines weigh more than the
    thousands of strangers with high ones that an answer is made of. Newton's method; an exponent that comes out negative is
    held at 0, as the paper of the method does, and the rest fitted again.

    Args:
        same_S: cosines of pairs of one person, (S,).
        different_D: cosines of pairs of two, (D,).
        counts_D: how many pairs of two have each of these cosines; one each if not given.
        priors: in (0, 1).

    Raises:
        ValueError: fewer than 4 pairs of a kind, or a cosine that is not in [-1, 1]; the message says which.

    References:
        Brümmer, du Preez. Application-independent evaluation of speaker detection. Computer Speech & Language 2006.
    """
    same, different = (np.asarray(cosines, np.float64) for cosines in (same_S, different_D))
    counts = np.ones(len(different)) if counts_D is None else np.asarray(counts_D, np.float64)
    if min(len(same), counts.sum()) < 4:
        raise ValueError(
            f"calibration: got {len(same)} pairs of one person and {counts.sum():.0f} of two, wanted 4 of each"
        )
    cosines = np.concatenate([same, different])
    if not np.all(np.abs(cosines) <= 1 + 1e-6):
        raise ValueError("calibration: wanted cosines in [-1, 1], got one beyond or one that is no number")
    truth = np.arange(len(cosines)) < len(same)
    shares = np.concatenate([np.full(len(same), 1 / len(same)), counts / counts.sum()])
    losses = [_Loss(truth, shares, prior) for prior in priors]
    features = _features(cosines)
    free = [0, 1, 2]
    while True:
        found = np.zeros(3)
        found[free] = _newton(features[:, free], losses)
        negative = [at for at in free if at < 2 and found[at] < 0]
        if not negative:
            break
        free.remove(min(negative, key=lambda at: found[at]))
    rise, fall, shift = (round(float(value), 6) for value in found)
    lowest, highest = (round(float(np.log(pairs / 3)), 6) for pairs in (len(same), counts.sum()))
    return BetaCalibration(rise=rise, fall=fall, shift=shift, lowest=-lowest, highest=highest)


def posterior(log_ratio_P: ArrayLike, prior: float) -> Floats:
    """The probability of one person, float64 (P,), in [0, 1], given the log ratio and the prior, in (0, 1)."""
    return _sigmoid(np.asarray(log_ratio_P, np.float64) + np.log(prior) - np.log1p(-prior))


def reliability(
    probability_P: ArrayLike,
    same_P: ArrayLike,
    *,
    weights_P: ArrayLike | None = None,
    counts_P: ArrayLike | None = None,
    bins: int = BINS,
) -> list[ReliabilityBin]:
    """What was said and what was so, bin by bin; bins without pairs are left out.

    Args:
        probability_P: in [0, 1].
        same_P: bool, whether a pair is one person.
        weights_P: of the pairs; all the same if not given.
        counts_P: how many pairs each entry stands for; one if not given.
        bins: of equal width.
    """
    p, same = np.asarray(probability_P, np.float64), np.asarray(same_P, np.float64)
    weights = np.ones_like(p) if weights_P is None else np.asarray(weights_P, np.float64)
    counts = np.ones(len(p)) if counts_P is None else np.asarray(counts_P)
    at = np.minimum((p * bins).astype(np.int64), bins - 1)
    found = []
    for n in np.unique(at):
        inside = at == n
        weight = weights[inside].sum()
        found.append(
            ReliabilityBin(
                predicted=float(p[inside] @ weights[inside] / weight),
                observed=float(same[inside] @ weights[inside] / weight),
                weight=float(weight / weights.sum()),
                pairs=int(counts[inside].sum()),
            )
        )
    return found


def calibration_error(bins_B: list[ReliabilityBin]) -> float:
    """The expected calibration error, in [0, 1]: how far what was said is from what was so, on the mean over pairs.

    References:
        Naeini, Cooper, Hauskrecht. Obtaining Well Calibrated Probabilities Using Bayesian Binning. AAAI 2015.
    """
    return float(sum(one.weight * abs(one.predicted - one.observed) for one in bins_B))


def _features(cosines_P: Floats) -> Floats:
    x = np.clip((1 + cosines_P) / 2, _EDGE, 1 - _EDGE)
    return np.stack([np.log(x), -np.log1p(-x), np.ones_like(x)], axis=-1)


class _Loss:
    """The log-loss of log ratios at one prior, of which the prior alone has 1."""

    def __init__(self, truth_P: NDArray[np.bool_], shares_P: Floats, prior: float) -> None:
        entropy = -prior * np.log(prior) - (1 - prior) * np.log1p(-prior)
        self.truth_P, self.odds = truth_P, float(np.log(prior) - np.log1p(-prior))
        self.weights_P: Floats = shares_P * np.where(truth_P, prior, 1 - prior) / entropy

    def at(self, ratios_P: Floats) -> float:
        logits_P = ratios_P + self.odds
        return float(self.weights_P @ np.logaddexp(0.0, np.where(self.truth_P, -logits_P, logits_P)))

    def slopes(self, ratios_P: Floats) -> tuple[Floats, Floats]:
        """First and second derivatives by each ratio, (P,)."""
        p = _sigmoid(ratios_P + self.odds)
        return self.weights_P * (p - self.truth_P), self.weights_P * p * (1 - p)


def _newton(features_PF: Floats, losses: Sequence[_Loss]) -> Floats:
    """The coefficients of least loss, (F,); a whisper of ridge keeps pairs that do not overlap from going to infinity."""
    ridge = 1e-9 * np.eye(features_PF.shape[1])
    coefficients = np.zeros(features_PF.shape[1])

    def loss_at(w: Floats) -> float:
        return sum(loss.at(features_PF @ w) for loss in losses) + float(0.5 * w @ ridge @ w)

    loss = loss_at(coefficients)
    for _ in range(_STEPS):
        first_P, second_P = np.sum([one.slopes(features_PF @ coefficients) for one in losses], axis=0)
        gradient = features_PF.T @ first_P + ridge @ coefficients
        hessian = (features_PF * second_P[:, None]).T @ features_PF + ridge
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while (tried := loss_at(coefficients - size * step)) > loss and size > _ENOUGH:
            size /= 2
        gained, coefficients, loss = loss - tried, coefficients - size * step, tried
        if gained < _ENOUGH:
            break
    return coefficients


def _sigmoid(values: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -values))
