"""Which faces are shown to a network: people split into parts, faces drawn in balanced pairs and batches.

N faces, P pairs.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pairs", "PeopleSplit", "sample_batch", "sample_pairs", "split_for_training", "split_people"]

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PeopleSplit:
    """Three groups of people that share nobody, each sorted: to learn from, to choose by, to report on."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a person in two groups.

        Raises:
            ValueError: the message names the first of them.
        """
        people = Counter((*self.train, *self.validation, *self.held_out))
        if twice := sorted(person for person, times in people.items() if times > 1):
            raise ValueError(f"people split: {twice[0]!r} is in two groups or twice in one, wanted everyone once")


class Pairs(NamedTuple):
    """P pairs of faces: row numbers of both sides, int64 (P,), and whether they are one person, bool (P,)."""

    left: Rows
    right: Rows
    same: NDArray[np.bool_]


def split_people(labels: Sequence[str], *, validation_share: float, held_out_share: float, seed: int) -> PeopleSplit:
    """Split people, never photos, into train, validation and held-out.

    A person's rank is a hash of seed and name, so that people keep their group, but for a few at the borders, when others
    join. People with several photos and people with one are split alike.

    Args:
        labels: the person of each face.
        validation_share: share of the people to choose the best epoch by, above 0.
        held_out_share: share of the people that nothing is chosen by, above 0; both together below 1.
        seed: another seed is another split.

    Raises:
        ValueError: shares out of range, or too few people: every group needs two, one of them with two photos, to be
            measured at all. The message says what was got.
    """
    shares = (held_out_share, validation_share)
    if not (min(shares) > 0 and sum(shares) < 1):
        raise ValueError(
            f"validation_share and held_out_share: got {validation_share} and {held_out_share}, "
            "wanted both above 0 and together below 1"
        )
    photos = Counter(labels)
    ranked = sorted(photos, key=lambda person: hashlib.sha256(f"{seed}:{person}".encode()).digest())
    several = [person for person in ranked if photos[person] > 1]
    single = [person for person in ranked if photos[person] == 1]
    if len(several) < 3 or (len(several) < 6 and len(single) < 3):
        raise ValueError(
            f"people split: got {len(several)} people with several photos and {len(single)} with one, wanted at least six "
            "with several, or three with several and three with one; add photos of more people"
        )
    least = 2 if len(several) >= 6 else 1
    groups = zip(_cut(several, shares, least=least), _cut(single, shares, least=2 - least), strict=True)
    held_out, validation, train = (tuple(sorted(a + b)) for a, b in groups)
    return PeopleSplit(train=train, validation=validation, held_out=held_out)


def split_for_training(labels: Sequence[str], *, seed: int) -> PeopleSplit:
    """The split that a training makes: 15 in 100 people to choose by, 25 to report on; arguments and errors as `split_people`."""
    return split_people(labels, validation_share=0.15, held_out_share=0.25, seed=seed)


def _cut(people: list[str], shares: tuple[float, float], *, least: int) -> list[list[str]]:
    """First, second and rest of `people`, none shorter than `least`."""
    sizes = [max(least, round(share * len(people))) for share in shares]
    while len(people) - sum(sizes) < least:
        sizes[sizes.index(max(sizes))] -= 1
    first, second = sizes[0], sizes[0] + sizes[1]
    return [people[:first], people[first:second], people[second:]]


def sample_pairs(labels_N: NDArray[np.integer[Any]], *, pairs: int, generator: np.random.Generator) -> Pairs:
    """Draw pairs of faces, half of one person and half of two, in random order.

    People weigh the same however many photos they have; a person with a single photo is met in pairs of two people only.

    Args:
        labels_N: integer, (N,), the person of each face.
        pairs: how many to draw; of an odd number one more is of two people.
        generator: where the choice comes from.

    Raises:
        ValueError: fewer than two people, or nobody with two photos; the message says what was got.
    """
    people = _People(labels_N)
    if len(people.counts) < 2 or not people.several.size:
        raise ValueError(
            f"pairs: got {len(people.counts)} people, {people.several.size} of them with at least two photos, "
            "wanted at least two people, one of them with two photos"
        )
    alike, unlike = pairs // 2, pairs - pairs // 2
    person = generator.choice(people.several, alike)
    first = generator.integers(people.counts[person])
    second = (first + generator.integers(1, people.counts[person])) % people.counts[person]
    one = generator.integers(len(people.counts), size=unlike)
    other = (one + generator.integers(1, len(people.counts), size=unlike)) % len(people.counts)
    left = np.concatenate([people.row(person, first), people.row(one, generator.integers(people.counts[one]))])
    right = np.concatenate([people.row(person, second), people.row(other, generator.integers(people.counts[other]))])
    order = generator.permutation(pairs)
    return Pairs(left[order], right[order], (np.arange(pairs) < alike)[order])


def sample_batch(
    labels_N: NDArray[np.integer[Any]],
    *,
    people: int,
    photos: int,
    strangers: int = 0,
    stranger_views: int = 1,
    generator: np.random.Generator,
) -> Rows:
    """Draw the rows of a batch that is rich in pairs: `photos` of each of some people, and a few with a single photo.

    Args:
        labels_N: integer, (N,), the person of each face.
        people: how many with at least two photos; fewer if there are not so many.
        photos: of each of them, at most; a person with fewer gives all.
        strangers: how many of those with a single photo, at most; they serve as other people.
        stranger_views: how often each of these photos stands in the batch. Two views, each augmented in its own way, make
            a pair of one person out of a single photo.
        generator: where the choice comes from.

    Returns:
        int64, no row twice but those of strangers.

    Raises:
        ValueError: fewer than two people, or nobody with two photos; the message says what was got.
    """
    everyone = _People(labels_N)
    if len(everyone.counts) < 2 or not everyone.several.size:
        raise ValueError(
            f"batch: got {len(everyone.counts)} people, {everyone.several.size} of them with at least two photos, "
            "wanted at least two people, one of them with two photos"
        )
    chosen = generator.permutation(everyone.several)[:people]
    alone = generator.permutation(everyone.single)[:strangers]
    rows = [everyone.row(who, generator.permutation(everyone.counts[who])[:photos]) for who in chosen]
    return np.concatenate([*rows, np.repeat(everyone.row(alone, np.zeros_like(alone)), stranger_views)])


class _People:
    """The faces grouped by person: person p's are order[starts[p] : starts[p] + counts[p]]."""

    def __init__(self, labels_N: NDArray[np.integer[Any]]) -> None:
        self.order = np.argsort(labels_N, kind="stable").astype(np.int64)
        _, self.starts, self.counts = np.unique(labels_N[self.order], return_index=True, return_counts=True)
        self.several = np.flatnonzero(self.counts > 1)
        self.single = np.flatnonzero(self.counts == 1)

    def row(self, person: Rows, photo: Rows) -> Rows:
        rows: Rows = self.order[self.starts[person] + photo]
        return rows
