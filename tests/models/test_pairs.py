from collections import Counter

import numpy as np
import pytest

from models.pairs import PeopleSplit, sample_batch, sample_pairs, split_people

LABELS = np.array([4, 4, 9, 9, 9, 9, 9, 9, 7, 2, 2, 2])  # 7 has one photo, 9 has six


def labels_of(several: int, single: int) -> list[str]:
    return [f"s{person}" for person in range(several) for _ in range(2 + person % 3)] + [
        f"o{person}" for person in range(single)
    ]


@pytest.mark.parametrize(("pairs", "alike"), [(1, 0), (2, 1), (7, 3), (400, 200)])
def test_half_of_the_pairs_are_of_one_person(pairs: int, alike: int) -> None:
    drawn = sample_pairs(LABELS, pairs=pairs, generator=np.random.default_rng(0))
    assert drawn.left.shape == drawn.right.shape == drawn.same.shape == (pairs,)
    assert drawn.same.sum() == alike
    np.testing.assert_array_equal(LABELS[drawn.left] == LABELS[drawn.right], drawn.same)
    assert (drawn.left != drawn.right).all()


def test_people_weigh_the_same_however_many_photos_they_have() -> None:
    drawn = sample_pairs(LABELS, pairs=6000, generator=np.random.default_rng(1))
    alike = Counter(LABELS[drawn.left[drawn.same]].tolist())
    assert set(alike) == {2, 4, 9}
    assert all(count == pytest.approx(1000, abs=120) for count in alike.values())
    unlike = Counter(LABELS[np.concatenate([drawn.left[~drawn.same], drawn.right[~drawn.same]])].tolist())
    assert all(unlike[person] == pytest.approx(1500, abs=150) for person in (2, 4, 7, 9))


def test_every_photo_and_every_pair_is_drawn() -> None:
    drawn = sample_pairs(LABELS, pairs=6000, generator=np.random.default_rng(2))
    got = {frozenset(pair) for pair in zip(drawn.left.tolist(), drawn.right.tolist(), strict=True)}
    assert len(got) == 12 * 11 / 2


def test_pairs_come_in_random_order_and_follow_their_generator() -> None:
    first, again, other = (sample_pairs(LABELS, pairs=50, generator=np.random.default_rng(s)) for s in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.left, other.left)
    assert np.argmin(first.same[::-1]) + np.argmin(first.same) + 12 > 10
    assert 5 < first.same[:25].sum() < 20


@pytest.mark.parametrize("labels", [[1, 1, 1], [1, 2, 3], [1], []])
def test_pairs_need_two_people_and_two_photos_of_one(labels: list[int]) -> None:
    people, several = len(set(labels)), int(len(labels) == 3 and len(set(labels)) == 1)
    for draw in (
        lambda: sample_pairs(np.array(labels, int), pairs=2, generator=np.random.default_rng(0)),
        lambda: sample_batch(np.array(labels, int), people=2, photos=2, generator=np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match=f"got {people} people, {several} of them with at least two photos"):
            draw()


def test_a_batch_holds_photos_of_some_people_and_strangers_once() -> None:
    seen: set[int] = set()
    for seed in range(30):
        rows = sample_batch(LABELS, people=2, photos=3, strangers=1, generator=np.random.default_rng(seed))
        assert len(set(rows.tolist())) == len(rows)
        photos = Counter(LABELS[rows].tolist())
        assert photos.pop(7) == 1
        assert len(photos) == 2
        assert all(count == min(3, int((person == LABELS).sum())) for person, count in photos.items())
        seen.update(rows.tolist())
    assert seen == set(range(12))


def test_strangers_stand_in_a_batch_as_often_as_they_are_viewed() -> None:
    rows = sample_batch(LABELS, people=2, photos=2, strangers=1, stranger_views=3, generator=np.random.default_rng(0))
    photos = Counter(LABELS[rows].tolist())
    assert photos.pop(7) == 3
    assert len(set(rows[LABELS[rows] == 7].tolist())) == 1
    assert all(count == 2 for count in photos.values())


def test_a_batch_takes_what_there_is() -> None:
    rows = sample_batch(LABELS, people=50, photos=50, strangers=50, generator=np.random.default_rng(0))
    assert sorted(rows.tolist()) == list(range(12))


@pytest.mark.parametrize(("several", "single"), [(3, 3), (6, 0), (7, 1), (30, 0), (20, 200), (80, 5)])
@pytest.mark.parametrize("shares", [(0.2, 0.2), (0.05, 0.9), (0.15, 0.25)])
def test_nobody_crosses_and_every_group_can_be_measured(several: int, single: int, shares: tuple[float, float]) -> None:
    labels = labels_of(several, single)
    photos = Counter(labels)
    split = split_people(labels, validation_share=shares[0], held_out_share=shares[1], seed=1)
    groups = [split.train, split.validation, split.held_out]
    assert sorted(person for group in groups for person in group) == sorted(photos)
    for group in groups:
        assert len(group) >= 2
        assert any(photos[person] > 1 for person in group)


def test_groups_have_the_shares_asked_for_among_people_with_several_photos_and_with_one() -> None:
    split = split_people(labels_of(80, 40), validation_share=0.15, held_out_share=0.25, seed=0)
    for group, several, single in ((split.held_out, 20, 10), (split.validation, 12, 6), (split.train, 48, 24)):
        assert sum(person[0] == "s" for person in group) == several
        assert sum(person[0] == "o" for person in group) == single


def test_a_split_follows_its_seed_and_not_the_order_of_the_photos() -> None:
    labels = labels_of(30, 10)
    split = split_people(labels, validation_share=0.2, held_out_share=0.2, seed=5)
    assert split_people(labels[::-1], validation_share=0.2, held_out_share=0.2, seed=5) == split
    assert split_people(labels, validation_share=0.2, held_out_share=0.2, seed=6) != split


def test_people_keep_their_group_when_a_few_others_join() -> None:
    before = split_people(labels_of(100, 0), validation_share=0.2, held_out_share=0.2, seed=5)
    after = split_people(labels_of(105, 0), validation_share=0.2, held_out_share=0.2, seed=5)
    assert len(set(before.held_out) & set(after.train)) == 0
    assert len(set(before.train) & set(after.held_out)) == 0
    assert len(set(before.held_out) - set(after.held_out)) <= 5


@pytest.mark.parametrize(("several", "single"), [(0, 0), (2, 50), (5, 2)])
def test_too_few_people_are_refused(several: int, single: int) -> None:
    with pytest.raises(ValueError, match=f"got {several} people with several photos and {single} with one, wanted"):
        split_people(labels_of(several, single), validation_share=0.2, held_out_share=0.2, seed=0)


@pytest.mark.parametrize("shares", [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5), (-0.1, 0.3)])
def test_shares_that_leave_a_group_empty_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=f"got {shares[0]} and {shares[1]}, wanted both above 0"):
        split_people(labels_of(9, 0), validation_share=shares[0], held_out_share=shares[1], seed=0)


def test_a_split_with_a_person_in_two_groups_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="'ada' is in two groups"):
        PeopleSplit(train=("ada", "bo"), validation=("ada",), held_out=("cy",))
