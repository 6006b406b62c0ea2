"""How a version is asked: how many matches, among which faces, and how they are shown."""

import math
from dataclasses import dataclass
from datetime import date
from typing import Any

from store.errors import QueryError

__all__ = ["AS_USUAL", "MOST_MATCHES", "QueryOptions"]

MOST_MATCHES = 1_000_000
"""Above every k that anybody means; FAISS makes room for k results a query before it looks."""


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """What is asked of a version. Filters restrict what is searched: k matches come back where k faces pass them.

    Attributes:
        k: matches a face, at least 1.
        version: the version to ask; None asks CURRENT.
        encoder: an id or a name that the version must have been built with; None takes the version's own.
        face: answer only this face of the photo, counted from 1 in the order in which faces are given; None answers all.
        labels: only faces of these people; empty for everybody, named or not.
        sources: only photos under these folders, prefixes or urls, or listed by these sources; empty for all.
        taken_from: only photos of this day or later. A photo's day is what its source's list says in a column `date`, `taken`,
            `taken_at` or `datetime`, else its file's time; a photo without either never passes.
        taken_to: only photos of this day or earlier.
        min_quality: least quality of a known face, in [0, 1].
        min_cosine: matches below it are left out, in [-1, 1].
        min_same_person: matches whose probability is below it are left out, in [0, 1]; refused where a version is not calibrated.
        not_photos: uris of photos that are not searched, under any of their names.
        not_itself: the photo asked with, or the one that the face asked about is in, is not searched.
        fold: near-duplicate photos (another size, another encoding) stand as one match, which names the others.
        per_person: at most so many matches of one labelled person; None for no limit.

    Raises:
        QueryError: a value is out of range; the message names it.
    """

    k: int = 10
    version: int | None = None
    encoder: str | None = None
    face: int | None = None
    labels: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    taken_from: date | None = None
    taken_to: date | None = None
    min_quality: float = 0.0
    min_cosine: float = -1.0
    min_same_person: float = 0.0
    not_photos: tuple[str, ...] = ()
    not_itself: bool = False
    fold: bool = False
    per_person: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_MATCHES:
            raise QueryError(f"k is {self.k}: ask for at least 1 match and at most {MOST_MATCHES:,}")
        if self.face is not None and self.face < 1:
            raise QueryError(f"face is {self.face}: faces are counted from 1")
        if self.per_person is not None and self.per_person < 1:
            raise QueryError(f"per_person is {self.per_person}: allow at least 1 match a person")
        _within("min_quality", self.min_quality, 0.0, 1.0)
        _within("min_cosine", self.min_cosine, -1.0, 1.0)
        _within("min_same_person", self.min_same_person, 0.0, 1.0)
        if self.taken_from and self.taken_to and self.taken_from > self.taken_to:
            raise QueryError(
                f"taken_from is {self.taken_from}, after taken_to, {self.taken_to}: no photo is of such a day"
            )

    @property
    def filters(self) -> tuple[Any, ...]:
        """Those options that say which faces are searched whatever is asked with; equal ones let the same faces pass."""
        dates = (self.taken_from, self.taken_to)
        return (self.labels, self.sources, *dates, self.min_quality, self.not_photos)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise QueryError(f"{name} is {value}: wanted a number from {low:g} to {high:g}")


AS_USUAL = QueryOptions()
"""Ten matches a face, of everybody."""
