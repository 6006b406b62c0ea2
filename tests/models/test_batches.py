from collections import Counter

import numpy as np
import pytest
import torch

from models.augment import draw_changes
from models.batches import Batches, cut_batch
from models.training_settings import TrainingSettings

LABELS = np.arange(40, dtype=np.int64) // 4
SETTINGS = TrainingSettings(batch_people=6, batch_photos=4)


def test_the_same_seed_draws_the_same_batches_and_another_one_others() -> None:
    one, other = Batches(LABELS, SETTINGS), Batches(LABELS, SETTINGS)
    for _ in range(3):
        (rows, changes), (again, also) = one.draw(), other.draw()
        assert rows.tolist() == again.tolist()
        assert changes is not None
        assert also is not None
        assert all(torch.equal(a, b) for a, b in zip(changes, also, strict=True))
    assert one.draw().rows.tolist() != one.draw().rows.tolist()


def test_a_restored_state_goes_on_with_the_same_batches() -> None:
    batches = Batches(LABELS, SETTINGS)
    batches.draw()
    state = batches.state()
    wanted = [batches.draw() for _ in range(3)]
    fresh = Batches(LABELS, TrainingSettings(batch_people=6, batch_photos=4, seed=9))
    fresh.restore(*state)
    for rows, changes in wanted:
        again, also = fresh.draw()
        assert rows.tolist() == again.tolist()
        assert changes is not None
        assert also is not None
        assert torch.equal(changes.placement, also.placement)


@pytest.mark.parametrize("parts", [1, 2, 4, 5])
def test_parts_are_even_mix_people_and_keep_each_face_with_its_changes(parts: int) -> None:
    drawn = Batches(LABELS, SETTINGS).draw()
    batch = cut_batch(drawn, parts=parts)
    assert drawn.changes is not None
    assert batch.changes is not None
    assert sorted(batch.rows.tolist()) == sorted(drawn.rows.tolist())
    place = [drawn.rows.tolist().index(row) for row in batch.rows.tolist()]
    for mine, theirs in zip(batch.changes, drawn.changes, strict=True):
        assert torch.equal(mine, theirs[place])
    sizes = [len(batch.rows[part]) for part in batch.slices(0, parts)]
    assert sum(sizes) == 24
    assert max(sizes) - min(sizes) <= 1
    if parts == 4:
        for part in batch.slices(0, parts):
            assert len(Counter(LABELS[batch.rows[part]])) == 6


def test_members_of_a_team_get_their_parts_in_turn() -> None:
    batch = cut_batch(Batches(LABELS, SETTINGS).draw(), parts=6)
    assert batch.sizes(3) == [12, 12]
    assert batch.sizes(2) == [8, 8, 8]
    assert [s.start for s in batch.slices(2, 4)] == [8, 12]


def test_without_augmentation_nothing_is_changed() -> None:
    drawn = Batches(LABELS, TrainingSettings(batch_people=6, batch_photos=4, augment=None)).draw()
    assert drawn.changes is None
    assert cut_batch(drawn, parts=3).changes is None


def test_some_of_the_changes_are_those_of_some_of_the_crops() -> None:
    assert SETTINGS.augment is not None
    changes = draw_changes(3, SETTINGS.augment, generator=torch.Generator().manual_seed(0))
    assert torch.equal(changes.part(slice(1, 2)).colour, changes.colour[1:2])
