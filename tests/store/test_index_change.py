from dataclasses import replace

import pytest

from store.index_change import Change, Drift, reason_to_rebuild, update_in_words
from store.index_choice import IndexBudget, choose_index

SMALL = choose_index(20_000, 512, IndexBudget())
LARGE = choose_index(1_000_000, 512, IndexBudget())
CHANGE = Change(
    parent=7, kind="scan", says_training=True, same_encoder=True, same_contract=True, same_budget=True, trained_faces=1_000_000,
    changed_before=100_000, added=10_000, removed=2_000,
)  # fmt: skip
DRIFT = Drift(
    unevenness_then=1.2,
    unevenness_now=1.3,
    misfit_then=0.3,
    misfit_now=0.31,
    recall_then=0.97,
    recall=0.962,
    least=0.953,
    wanted=0.95,
)


def test_a_little_change_that_was_measured_to_be_good_enough_makes_a_changed_copy() -> None:
    assert reason_to_rebuild(CHANGE, LARGE) is None
    assert reason_to_rebuild(CHANGE, LARGE, DRIFT) is None
    assert update_in_words(CHANGE, DRIFT) == (
        "a copy of version 7's index, 10,000 faces added and 2,000 removed; 11.2% of the 1,000,000 it was trained on have come or "
        "gone since; its codes miss the faces by 1.03 times as much as then, its lists are 1.08 times as uneven; recall@10 0.962 on "
        "held-out queries"
    )


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"same_encoder": False}, "version 7 was embedded by another encoder"),
        ({"same_contract": False}, "version 7's faces were found by another contract"),
        ({"same_budget": False}, "version 7's index had another budget"),
        ({"kind": "exact"}, "version 7's index is of the kind exact, which is not for so many faces and this budget"),
        ({"kind": "graph"}, "version 7's index is of the kind graph"),
        ({"says_training": False}, "version 7 does not say what its index was trained on"),
        ({"added": 198_001}, "300,001 faces have come or gone since it was trained on 1,000,000, more than 30%"),
        ({"removed": 190_001}, "300,001 faces have come or gone"),
        ({"changed_before": 288_001}, "300,001 faces have come or gone"),
    ],
)
def test_what_asks_for_a_new_index_before_anything_is_tried(changed: dict[str, object], sentence: str) -> None:
    said = reason_to_rebuild(replace(CHANGE, **changed), LARGE)  # type: ignore[arg-type]
    assert said is not None
    assert said.startswith(sentence)


def test_a_share_just_within_is_changed() -> None:
    assert reason_to_rebuild(replace(CHANGE, added=198_000), LARGE) is None


def test_where_exact_search_is_enough_nothing_is_saved_by_a_copy() -> None:
    assert reason_to_rebuild(CHANGE, SMALL) == (
        "an exact index is its vectors and nothing else: nothing is saved by a copy"
    )


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"unevenness_now": 1.6},
            "with the changes a query would look at 1.33 times as many faces, for its lists fill unevenly",
        ),
        ({"misfit_now": 0.36}, "with the changes its codes miss the faces by 1.20 times as much"),
        ({"added_found": 0.89}, "of the faces added only 89% were found by their own vectors"),
        (
            {"least": 0.949, "recall": 0.9599},
            "with the changes recall@10 was 0.960, 0.970 before: not sure to reach 0.95",
        ),
        ({"least": 0.949, "recall_then": None}, "with the changes recall@10 was 0.962: not sure to reach 0.95"),
        ({"recall": 0.94, "recall_then": 0.94}, "with the changes recall@10 was 0.940, below the gate's 0.95"),
        (
            {"wanted": 0.98, "recall_then": 0.98},
            "with the changes recall@10 was 0.962, 0.980 before: not sure to reach",
        ),
    ],
)
def test_what_asks_for_a_new_index_once_the_copy_is_measured(changed: dict[str, float], sentence: str) -> None:
    said = reason_to_rebuild(CHANGE, LARGE, replace(DRIFT, **changed))
    assert said is not None
    assert said.startswith(sentence)


def test_a_recall_that_is_as_it_was_is_good_enough_though_it_was_never_sure() -> None:
    assert reason_to_rebuild(CHANGE, LARGE, replace(DRIFT, least=0.949)) is None


def test_a_kind_without_lists_has_no_lists_to_fill_unevenly() -> None:
    drift = replace(DRIFT, unevenness_then=None, unevenness_now=None)
    assert reason_to_rebuild(CHANGE, LARGE, drift) is None
    assert "uneven" not in update_in_words(CHANGE, drift)
