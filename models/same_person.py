"""How sure one may be that a known face is the person asked about: a calibration, the gallery's size, and words for it.

P pairs, T rows of a table.
"""

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.calibration import (
    BetaCalibration,
    LogRatio,
    ReliabilityBin,
    calibration_error,
    fit_beta,
    posterior,
    reliability,
)

__all__ = [
    "CELLS",
    "PRESENT",
    "UNCALIBRATED",
    "Calibration",
    "Check",
    "LabelledPairs",
    "PairCounts",
    "calibrate",
    "cell_cosines",
    "check_pairs",
    "count_cells",
    "false_accept_table",
    "grade",
]

Floats = NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]

PRESENT = 0.5
"""That the person asked about is among the faces searched at all: nobody knows, so even odds."""

CELLS = 4_000
"""Over [-1, 1]: a cosine is known to 0.0005, which changes a probability by less than a hundredth."""

UNCALIBRATED = "uncalibrated"

_GRADES = (
    (0.99, "almost certainly the same person"),
    (0.90, "very likely the same person"),
    (0.70, "likely the same person"),
    (0.30, "could be either"),
    (0.10, "likely another person"),
    (0.0, "very likely another person"),
)
_MOST_PRIOR = 0.5  # of one face among very few
_ROWS_A_DECADE = 4


class LabelledPairs(NamedTuple):
    """Labelled pairs.

    Attributes:
        same: floating, (S,), the cosine of each pair of one person.
        different: int64, (CELLS,), how many pairs of two people have a cosine in each cell of `cell_cosines`.
        people: whose faces these are.
        faces: how many.
    """

    same: NDArray[np.floating[Any]]
    different: NDArray[np.int64]
    people: int
    faces: int


def cell_cosines() -> Floats:
    """The cosine in the middle of each cell, float64 (CELLS,), rising over [-1, 1]."""
    middles: Floats = (np.arange(CELLS, dtype=np.float64) + 0.5) * (2 / CELLS) - 1
    return middles


def count_cells(cosines_P: ArrayLike) -> NDArray[np.int64]:
    """How many cosines lie in each cell, int64 (CELLS,); millions of pairs of two people are kept so."""
    at_P = ((np.asarray(cosines_P) + 1) * (CELLS / 2)).astype(np.int64)
    return np.bincount(np.clip(at_P, 0, CELLS - 1).reshape(-1), minlength=CELLS)


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class PairCounts(_Record):
    """What pairs there were."""

    people: Count
    faces: Count
    same: Count
    different: Count


class Check(PairCounts):
    """What the calibration came to on pairs of people that it was not fitted on, both kinds weighing the same.

    `ece` is the expected calibration error; `bins` are rows of predicted, observed, weight and pairs.
    """

    ece: Share
    bins: list[tuple[Share, Share, Share, Count]]

    def rows(self) -> list[ReliabilityBin]:
        """The bins by name."""
        return [ReliabilityBin(*row) for row in self.bins]


class Calibration(_Record):
    """All that turns a cosine into a probability; it stands in a version's manifest and in an encoder's card.

    Attributes:
        ratio: the likelihood ratio.
        source: "labels" where it was fitted on the version's own, "card" where it came with the encoder.
        faces_a_person: the mean number of known faces of a labelled person.
        false_accepts: rising cosines, each with the share of pairs of two people that reach it; the last share is an upper bound.
        fitted_on: pairs that it was fitted on.
        checked_on: pairs of other people that it was tried on.
    """

    ratio: BetaCalibration
    source: Literal["labels", "card"]
    faces_a_person: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    false_accepts: Annotated[list[tuple[Annotated[float, Field(ge=-1, le=1)], Share]], Field(min_length=1)]
    fitted_on: PairCounts
    checked_on: Check

    def prior(self, searched: int) -> float:
        """The probability, before its cosine is known, that one face of so many is the person asked about."""
        return min(_MOST_PRIOR, PRESENT * self.faces_a_person / max(searched, 1))

    def same_person(self, cosines_P: ArrayLike, *, searched: int) -> Floats:
        """The probability that faces of these cosines are the person asked about, float64 (P,).

        Args:
            cosines_P: floating, (P,).
            searched: how many faces they were found among.
        """
        return posterior(self.ratio.log_ratio(cosines_P), self.prior(searched))

    def most(self, *, searched: int) -> float:
        """The highest probability that it gives to any of so many faces: pairs of two people bear out no more."""
        return float(self.same_person([1.0], searched=searched)[0])

    def false_hits(self, cosines_P: ArrayLike, *, searched: int) -> Floats:
        """How many faces of other people are expected to reach each of these cosines, among so many, float64 (P,)."""
        cosine_T, share_T = np.array(self.false_accepts, np.float64).T
        logs_P = np.interp(np.asarray(cosines_P, np.float64), cosine_T, np.log(np.maximum(share_T, 1e-300)))
        expected_P: Floats = np.exp(logs_P) * searched
        return expected_P

    def summary(self) -> dict[str, Any]:
        """Where it comes from and how good it is, for an answer."""
        return {
            "source": self.source,
            "method": self.ratio.method,
            "ece": self.checked_on.ece,
            "checked_on_pairs": self.checked_on.same + self.checked_on.different,
        }


def grade(same_person: float | None) -> str:
    """A probability in words."""
    if same_person is None:
        return UNCALIBRATED
    return next(words for least, words in _GRADES if same_person >= least)


def calibrate(fitted: LabelledPairs, checked: LabelledPairs, *, faces_a_person: float) -> Calibration:
    """Fit a calibration on some people's pairs and try it on others'.

    Args:
        fitted: pairs to fit on.
        checked: pairs of other people.
        faces_a_person: the mean number of faces of a person.

    Raises:
        ValueError: too few pairs, or cosines out of range; the message says which.
    """
    ratio = fit_beta(fitted.same, cell_cosines(), counts_D=fitted.different)
    bins = check_pairs(ratio, checked)
    return Calibration(
        ratio=ratio,
        source="labels",
        faces_a_person=round(faces_a_person, 4),
        false_accepts=false_accept_table(fitted.different + checked.different),
        fitted_on=_counts(fitted),
        checked_on=Check(
            **_counts(checked).model_dump(),
            ece=round(calibration_error(bins), 6),
            bins=[(round(b.predicted, 6), round(b.observed, 6), round(b.weight, 6), b.pairs) for b in bins],
        ),
    )


def check_pairs(ratio: LogRatio, pairs: LabelledPairs) -> list[ReliabilityBin]:
    """What the calibration says of labelled pairs at even odds, and what is so; both kinds weigh the same."""
    filled = np.flatnonzero(pairs.different)
    counts = np.concatenate([np.ones(len(pairs.same), np.int64), pairs.different[filled]])
    same = np.arange(len(counts)) < len(pairs.same)
    weights = np.where(same, 0.5 / len(pairs.same), 0.5 * counts / pairs.different.sum())
    cosines = np.concatenate([pairs.same, cell_cosines()[filled]])
    return reliability(posterior(ratio.log_ratio(cosines), 0.5), same, weights_P=weights, counts_P=counts)


def false_accept_table(different: NDArray[np.int64]) -> list[tuple[float, float]]:
    """Rising cosines, each with the share of pairs of two people that reach it, as far out as three pairs tell.

    Beyond the last row the share is taken as the last one's: it is known to be no more, and not how much less.

    Args:
        different: int64, (CELLS,), pairs by cell.
    """
    reach = np.cumsum(different[::-1])[::-1]  # pairs in this cell or a higher one
    shares = 10.0 ** -np.arange(0, np.log10(reach[0] / 3) + 1e-9, 1 / _ROWS_A_DECADE)
    edges = np.arange(CELLS) * (2 / CELLS) - 1
    rows = []
    for share in shares:
        at = int(np.flatnonzero(reach >= reach[0] * share - 1e-6)[-1])
        rows.append((round(float(edges[at]), 6), float(f"{reach[at] / reach[0]:.4g}")))
    return list(dict(sorted(rows)).items())


def _counts(pairs: LabelledPairs) -> PairCounts:
    return PairCounts(
        people=pairs.people, faces=pairs.faces, same=len(pairs.same), different=int(pairs.different.sum())
    )
