"""The choice is a pure function: a million faces are numbers here, nothing is built."""

from typing import Any

import pytest

from store.errors import VersionError
from store.index_choice import KINDS, AskedBudget, IndexBudget, choose_index, kind_for, lists_for, memory_of

G = 2**30


def first(faces: int, **budget: Any) -> str:
    choice = choose_index(faces, 512, IndexBudget(**budget))
    return choice.candidates[0].kind if choice.candidates else "exact"


@pytest.mark.parametrize(
    ("faces", "budget", "kind"),
    [
        (0, {}, "exact"),
        (13_000, {}, "exact"),
        (100_000, {}, "exact"),
        (1_000_000, {}, "scan"),
        (1_000_000, {"latency_ms": 500.0}, "exact"),
        (1_000_000, {"latency_ms": 500.0, "memory_bytes": G}, "scan"),
        (20_000, {"latency_ms": 1.0}, "scan"),
        (5_000, {"latency_ms": 0.001}, "exact"),
        (10_000_000, {}, "scan"),
        (50_000_000, {}, "scan"),
    ],
)
def test_what_a_gallery_gets(faces: int, budget: dict[str, Any], kind: str) -> None:
    assert first(faces, **budget) == kind


def test_a_small_gallery_stays_exact_and_says_why() -> None:
    choice = choose_index(5_749, 512, IndexBudget())
    assert choice.candidates == ()
    assert choice.why.startswith(
        "exact search: 5,749 faces of 512 dimensions are compared in about 1.1 ms, within 20 ms"
    )
    assert "hold 11.3 MiB of 4 GiB" in choice.why
    assert choice.why.endswith("5,749 faces are too few to train on, wanted 10,000")


def test_a_million_faces_get_something_else_and_it_says_why() -> None:
    choice = choose_index(1_000_000, 512, IndexBudget())
    assert [c.kind for c in choice.candidates] == ["scan", "lists-sq8", "lists-rabitq", "lists"]
    assert choice.candidates[0].key == "PCA192,PQ96x4fs,Refine(SQ8)"
    assert choice.exact is not None  # it would fit: should nothing else be right enough, it is taken
    assert choice.why == (
        "approximate search: exact search among 1,000,000 faces of 512 dimensions takes about 184 ms a query, more than 20 ms"
    )


def test_kinds_that_do_not_fit_are_refused_with_their_figures() -> None:
    choice = choose_index(10_000_000, 512, IndexBudget(memory_bytes=2 * G))
    assert [c.kind for c in choice.candidates] == ["scan", "lists-rabitq"]
    assert choice.exact is None
    assert choice.refused == ("lists-sq8: holds 4.95 GiB, more than 2 GiB", "lists: holds 19.3 GiB, more than 2 GiB")
    assert "holds 19.1 GiB, more than 2 GiB" in choice.why


def test_a_memory_that_nothing_fits_into_is_refused_with_the_nearest_that_would() -> None:
    wanted = (
        r"no index of 1,000,000 faces of 512 dimensions fits into 16 MiB: the smallest, PCA192,PQ96x4fs,Refine\(SQ8\), "
        r"holds 53.8 MiB; give --memory 54M or more"
    )
    with pytest.raises(VersionError, match=wanted):
        choose_index(1_000_000, 512, IndexBudget(memory_bytes=memory_of("16M")))
    assert first(1_000_000, memory_bytes=memory_of("54M")) == "scan"


def test_too_few_faces_to_train_on_are_not_promised_codes_by_the_refusal() -> None:
    with pytest.raises(VersionError, match=r"the smallest, Flat, holds 1.96 MiB; give --memory 2M or more"):
        choose_index(1_000, 512, IndexBudget(memory_bytes=1_000))


def test_dimensions_that_no_code_fits_stay_exact() -> None:
    choice = choose_index(1_000_000, 100, IndexBudget())
    assert choice.candidates == ()
    assert "wanted 20 ms" in choice.why
    assert choice.why.endswith("codes want dimensions by eights, not 100")


@pytest.mark.parametrize("faces", [10_000, 100_000, 1_000_000, 100_000_000])
def test_lists_are_a_power_of_two_with_enough_faces_each(faces: int) -> None:
    lists = lists_for(faces)
    assert lists & (lists - 1) == 0
    assert faces / lists >= 39
    assert lists <= 16_384


def test_what_is_left_after_faces_went_is_exact_where_it_is_too_small() -> None:
    assert kind_for("scan", 9_999, 512).kind == "exact"
    assert kind_for("scan", 10_000, 512).kind == "scan"
    assert kind_for("of a newer lookalike", 10**6, 512).kind == "exact"
    assert {kind_for(kind, 10**6, 512).kind for kind in KINDS} == set(KINDS)


@pytest.mark.parametrize(
    ("text", "count"), [("512M", 512 * 2**20), ("4g", 4 * G), ("1.5 GiB", 3 * G // 2), ("64KB", 65_536), ("900", 900)]
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert memory_of(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1G", "4X", "nan"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=f"memory is '{text}': wanted .* such as 512M or 4G"):
        memory_of(text)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"memory_bytes": 0}, "memory is 0 bytes"),
        ({"latency_ms": 0.0}, "latency is 0 ms: wanted more than 0"),
        ({"latency_ms": float("nan")}, "latency is nan ms"),
        ({"recall": 0.9}, "recall is 0.9: wanted from 0.95, which the gate asks for"),
        ({"recall": 1.0}, "recall is 1: wanted from 0.95"),
    ],
)
def test_a_budget_out_of_range_is_refused_by_name(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AskedBudget(**asked)


def test_what_was_not_asked_stays_as_it_was() -> None:
    before = IndexBudget(memory_bytes=G, latency_ms=5, recall=0.97)
    assert AskedBudget().after(before) == before
    assert AskedBudget(latency_ms=7).after(before) == IndexBudget(memory_bytes=G, latency_ms=7, recall=0.97)
    assert IndexBudget.of(before.as_json() | {"of a newer lookalike": 1}) == before
    assert IndexBudget.of(None) == IndexBudget()
