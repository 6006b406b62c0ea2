"""What an evaluation found: every figure, small enough for a line of JSON, a page and a task's result."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from models.retrieval import Retrieval
from models.roc import EqualError
from models.tar_at_far import TarAtFar
from models.verification import CrossValidation
from tasks.steps.plan_evaluation import Exclusion

__all__ = ["FACE_CHOICE", "Curve", "Evaluation", "Histogram", "Uncovered", "WrongPair"]

FACE_CHOICE = "in a photo with several faces, the one nearest the photo's centre"


@dataclass(frozen=True)
class Uncovered:
    """Photos of one kind without a face, and the pairs they are in; a pair of two such photos counts with each."""

    status: str
    reason: str
    photos: int
    pairs: int


@dataclass(frozen=True)
class Curve:
    """Points of the ROC, enough for a picture."""

    far: tuple[float, ...]
    tar: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """Covered pairs of one person and of two by cosine; `edges` has one more than each of the counts."""

    edges: tuple[float, ...]
    same: tuple[int, ...]
    different: tuple[int, ...]


@dataclass(frozen=True)
class WrongPair:
    """A covered pair on the wrong side of its fold's threshold.

    Attributes:
        first: the photo, as the pairs file has it.
        second: the other.
        same: whether they are one person.
        cosine: of the two faces.
        threshold: of its fold.
        faces: shard and face_id of both faces, to find their crops by.
    """

    first: str
    second: str
    same: bool
    cosine: float
    threshold: float
    faces: tuple[tuple[str, int], tuple[str, int]]


@dataclass(frozen=True)
class Evaluation:
    """The figures of one encoder on one pairs file.

    Pairs without two faces count as told apart, at cosine -1, in all figures but `accuracy_covered`.

    Attributes:
        images: the folder.
        pairs_file: the file of pairs.
        format: of it.
        exclusion: people left out, or None.
        encoder: its id.
        encoder_name: as its card has it.
        pairs: all that were measured.
        same: those of one person.
        covered: those with a face in both photos.
        uncovered: why the others have none.
        photos: named photos by status; `missing` are not in the folder. They add up to `named`.
        several_faces: photos with more than one face.
        people: in the pairs, None where nobody knows.
        folds_from: "file", or "cut" where the file has none.
        folds: accuracy by folds, over all pairs.
        accuracy_covered: the same over covered pairs only, None where they are too few.
        auc: the area under the ROC.
        equal_error: where both errors are equal.
        tar_at_far: a row a FAR.
        retrieval: among the photos with a face, one face each, or None.
        retrieval_reason: why there is none.
        curve: the ROC.
        histogram: of the scores.
        wrong: the most wrong pairs, worst first; how many there are stands in wrong_pairs.
        wrong_pairs: covered pairs that are told wrongly.
    """

    images: str
    pairs_file: str
    format: str
    exclusion: Exclusion | None
    encoder: str
    encoder_name: str
    pairs: int
    same: int
    covered: int
    uncovered: tuple[Uncovered, ...]
    photos: dict[str, int]
    several_faces: int
    people: int | None
    folds_from: str
    folds: CrossValidation
    accuracy_covered: float | None
    auc: float
    equal_error: EqualError
    tar_at_far: tuple[TarAtFar, ...]
    retrieval: Retrieval | None
    retrieval_reason: str | None
    curve: Curve
    histogram: Histogram
    wrong: tuple[WrongPair, ...]
    wrong_pairs: int

    @property
    def coverage(self) -> float:
        """The share of pairs with a face in both photos."""
        return self.covered / self.pairs

    def as_json(self) -> dict[str, Any]:
        """The figures by name; names of people and photos stay out. A number that is infinite or unknown is None."""
        tars = {_key(row.far): _without_far(row) for row in self.tar_at_far}
        thresholds = [_finite(fold.threshold) for fold in self.folds.folds]
        return {
            "pairs": self.pairs,
            "same": self.same,
            "different": self.pairs - self.same,
            "accuracy_mean": self.folds.mean,
            "accuracy_std": self.folds.std,
            "accuracy_standard_error": self.folds.standard_error,
            "accuracy_covered": self.accuracy_covered,
            "auc": self.auc,
            "eer": self.equal_error.rate,
            "tar_at_far": tars,
            "coverage": self.coverage,
            "covered": self.covered,
            "uncovered": [asdict(row) for row in self.uncovered],
            "wrong_pairs": self.wrong_pairs,
            "folds": {
                "from": self.folds_from,
                "pairs": [fold.pairs for fold in self.folds.folds],
                "accuracies": [fold.accuracy for fold in self.folds.folds],
            },
            "thresholds": {
                "folds": thresholds,
                "eer": _finite(self.equal_error.threshold),
                "far": {name: row["threshold"] for name, row in tars.items()},
            },
            "retrieval": None if self.retrieval is None else _retrieval_json(self.retrieval),
            "retrieval_reason": self.retrieval_reason,
            "roc": asdict(self.curve),
            "face": FACE_CHOICE,
            "photos": self.photos,
            "several_faces": self.several_faces,
            "people": self.people,
            "excluded": None if self.exclusion is None else asdict(self.exclusion),
            "encoder": {"id": self.encoder, "name": self.encoder_name},
            "images": self.images,
            "pairs_file": {"uri": self.pairs_file, "format": self.format},
        }


def _key(far: float) -> str:
    """0.001 as 1e-3, the way FARs are written."""
    mantissa, exponent = f"{far:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _without_far(row: TarAtFar) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name != "far"}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _retrieval_json(retrieval: Retrieval) -> dict[str, Any]:
    return {
        "queries": retrieval.queries,
        "faces": retrieval.faces,
        "people": retrieval.people,
        "map": retrieval.mean_average_precision,
        "precision_at": {str(k): value for k, value in retrieval.precision_at.items()},
        "possible_at": {str(k): value for k, value in retrieval.possible_at.items()},
        "rank_1": [asdict(point) for point in retrieval.rank_one],
    }
