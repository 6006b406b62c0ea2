"""Part of `calibration`: other ways from a cosine to a probability, by scikit-learn, and ours by its solver.

S pairs of one person, C cells of cosines, P pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from models.calibration import PRIORS, LogRatio, fit_beta
from models.same_person import LabelledPairs, cell_cosines

__all__ = ["METHODS", "fit_isotonic", "fit_platt"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Bounded:
    """A log ratio that claims no more than its pairs bear out, as `BetaCalibration` does."""

    raw: Callable[[Floats], Floats]
    lowest: float
    highest: float

    def log_ratio(self, cosines_P: ArrayLike) -> Floats:
        return np.clip(self.raw(np.asarray(cosines_P, np.float64)), self.lowest, self.highest)


def fit_platt(pairs: LabelledPairs) -> LogRatio:
    """A logistic regression on the cosine itself.

    References:
        Platt. Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods. 1999;
        both kinds of pairs weigh the same here, and his smoothed targets are left out: there are thousands of each.
    """
    cosines, truth, weights = _weighted(pairs)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000)
    model.fit(cosines[:, None], truth, sample_weight=weights * len(cosines))
    return _bounded(pairs, lambda c: model.decision_function(c[:, None]))


def fit_isotonic(pairs: LabelledPairs) -> LogRatio:
    """The rising step function nearest the truth, read between its steps by straight lines.

    References:
        Zadrozny, Elkan. Transforming classifier scores into accurate multiclass probability estimates. KDD 2002.
    """
    cosines, truth, weights = _weighted(pairs)
    model: Any = IsotonicRegression(out_of_bounds="clip")
    model.fit(cosines, truth, sample_weight=weights)

    def raw(c: Floats) -> Floats:
        p = np.clip(model.predict(c), 1e-12, 1 - 1e-12)
        ratios: Floats = np.log(p) - np.log1p(-p)
        return ratios

    return _bounded(pairs, raw)


def _fit_beta(pairs: LabelledPairs, priors: Sequence[float] = PRIORS) -> LogRatio:
    return fit_beta(pairs.same, cell_cosines(), counts_D=pairs.different, priors=priors)


METHODS: dict[str, Callable[[LabelledPairs], LogRatio]] = {
    "beta": _fit_beta,
    "beta, even odds": partial(_fit_beta, priors=(0.5,)),
    "Platt": fit_platt,
    "isotonic": fit_isotonic,
}
"""Each fits pairs; the first is the one that versions use. All but it fit at even odds, which changes isotonic regression in nothing."""


def _weighted(pairs: LabelledPairs) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    """Cosines, whether they are one person's, and weights that add up to a half for each kind."""
    filled = np.flatnonzero(pairs.different)
    cosines = np.concatenate([pairs.same, cell_cosines()[filled]]).astype(np.float64)
    truth = np.arange(len(cosines)) < len(pairs.same)
    same = np.full(len(pairs.same), 0.5 / len(pairs.same))
    return cosines, truth, np.concatenate([same, 0.5 * pairs.different[filled] / pairs.different.sum()])


def _bounded(pairs: LabelledPairs, raw: Callable[[Floats], Floats]) -> LogRatio:
    return _Bounded(raw, -float(np.log(len(pairs.same) / 3)), float(np.log(pairs.different.sum() / 3)))
