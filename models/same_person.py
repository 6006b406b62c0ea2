"""How sure one may be that a known face is the person asked about: a calibration, the gallery's size, and words for it.

P pairs, T rows of a table.
"""

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.calibration import (
    BetaCalibration,
    ReliabilityBin,
    calibration_error,
    fit_beta,
    posterior,
    reliability,
)

__all__ = [
    "PRESENT",
    "UNCALIBRATED",
    "Calibration",
    "Check",
    "LabelledPairs",
    "PairCounts",
    "calibrate",
    "check_pairs",
    "false_accept_table",
    "grade",
]

Floats = NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]

PRESENT = 0.5
"""That the person asked about is among the faces searched at all: nobody knows, so even odds."""

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
    """Cosines of labelled pairs, (S,) of one person and (D,) of two, and how many people and faces they are from."""

    same: NDArray[np.floating[Any]]
    different: NDArray[np.floating[Any]]
    people: int
    faces: int


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


def calibrate(
    fitted: LabelledPairs, checked: LabelledPairs, *, every_different: ArrayLike, faces_a_person: float
) -> Calibration:
    """Fit a calibration on some people's pairs and try it on others'.

    Args:
        fitted: pairs to fit on.
        checked: pairs of other people.
        every_different: cosines of all pairs of two people there are, for false hits far out.
        faces_a_person: the mean number of faces of a person.

    Raises:
        ValueError: too few pairs, or cosines out of range; the message says which.
    """
    ratio = fit_beta(fitted.same, fitted.different)
    bins = check_pairs(ratio, checked)
    return Calibration(
        ratio=ratio,
        source="labels",
        faces_a_person=round(faces_a_person, 4),
        false_accepts=false_accept_table(every_different),
        fitted_on=_counts(fitted),
        checked_on=Check(
            **_counts(checked).model_dump(),
            ece=round(calibration_error(bins), 6),
            bins=[(round(b.predicted, 6), round(b.observed, 6), round(b.weight, 6), b.pairs) for b in bins],
        ),
    )


def check_pairs(ratio: BetaCalibration, pairs: LabelledPairs) -> list[ReliabilityBin]:
    """What the calibration says of labelled pairs at even odds, and what is so; both kinds weigh the same."""
    cosines = np.concatenate([pairs.same, pairs.different])
    same = np.arange(len(cosines)) < len(pairs.same)
    weights = np.where(same, 0.5 / len(pairs.same), 0.5 / len(pairs.different))
    return reliability(posterior(ratio.log_ratio(cosines), 0.5), same, weights_P=weights)


def false_accept_table(different_D: ArrayLike) -> list[tuple[float, float]]:
    """Rising cosines, each with the share of these pairs that reach it, as far out as three pairs tell.

    Beyond the last row the share is taken as the last one's: it is known to be no more, and not how much less.
    """
    ordered = np.sort(np.asarray(different_D, np.float64))
    decades = np.log10(len(ordered) / 3)
    shares = 10.0 ** -np.arange(0, decades + 1e-9, 1 / _ROWS_A_DECADE)
    rows = [(float(np.clip(ordered[-int(np.ceil(len(ordered) * share))], -1, 1)), float(share)) for share in shares]
    return [(round(cosine, 6), float(f"{share:.4g}")) for cosine, share in rows]


def _counts(pairs: LabelledPairs) -> PairCounts:
    return PairCounts(people=pairs.people, faces=pairs.faces, same=len(pairs.same), different=len(pairs.different))
