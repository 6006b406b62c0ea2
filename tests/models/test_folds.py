import numpy as np
import pytest

from models.folds import stratified_folds


@pytest.mark.parametrize(("same", "different", "folds"), [(500, 500, 10), (37, 203, 10), (11, 10, 10), (5, 9, 3)])
def test_every_fold_has_its_share_of_both_kinds(same: int, different: int, folds: int) -> None:
    kinds = np.random.default_rng(1).permutation(np.arange(same + different) < same)
    fold_N = stratified_folds(kinds, folds=folds)
    for chosen in (kinds, ~kinds, np.ones_like(kinds)):
        sizes = np.bincount(fold_N[chosen], minlength=folds)
        assert sizes.sum() == chosen.sum()
        assert sizes.max() - sizes.min() <= 1
    assert set(fold_N.tolist()) == set(range(folds))


def test_the_folds_are_the_seed_s_and_do_not_follow_the_file_s_order() -> None:
    kinds = np.arange(200) < 100
    first = stratified_folds(kinds)
    np.testing.assert_array_equal(first, stratified_folds(kinds, seed=0))
    assert (first != stratified_folds(kinds, seed=1)).any()
    assert (first[:10] != np.arange(10)).any()


@pytest.mark.parametrize(("same", "different", "folds"), [(9, 50, 10), (50, 9, 10), (5, 5, 1), (0, 0, 2)])
def test_too_few_pairs_of_a_kind_are_refused(same: int, different: int, folds: int) -> None:
    message = f"got {same} pairs of one person and {different} of two for {folds} folds, wanted"
    with pytest.raises(ValueError, match=message):
        stratified_folds([True] * same + [False] * different, folds=folds)
