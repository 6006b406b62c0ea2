"""An index of two parts against one that holds the same faces in one piece."""

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from store.errors import ArtifactError
from store.index_changed import ChangedIndex
from store.index_edit import unevenness_of
from store.index_filter import AllowedOfBoth, allow, allow_rows, leave_out
from store.index_search import NOBODY, SearchSettings, index_size, indexed_ids, search

Vectors = npt.NDArray[np.float32]
N, A, D, LISTS = 1_200, 90, 24, 16
RNG = np.random.default_rng(7)


def unit(n: int) -> Vectors:
    vectors = RNG.standard_normal((n, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


IDS = np.sort(RNG.choice(2**62, N + A, replace=False).astype(np.int64))
GALLERY, QUERIES = unit(N + A), unit(30)
ADDED = np.sort(RNG.choice(N + A, A, replace=False))
BASE = np.setdiff1d(np.arange(N + A), ADDED)
GONE = np.sort(RNG.choice(BASE, 60, replace=False))
MOVED = GONE[:5]  # in both parts: what the base has of them counts no more
LEFT = IDS[GONE]
THERE = np.setdiff1d(np.arange(N + A), GONE[5:])
EVERYTHING = SearchSettings(nprobe=LISTS, refine=400, ef=4_000)
KINDS = ["Flat", f"IVF{LISTS},SQ8", f"PCA16,IVF{LISTS},SQ8,Refine(SQ8)", "PCA16,PQ8x4fs,Refine(SQ8)", "HNSW16,Flat"]


def under_ids(inner: Any, rows: Any) -> Any:
    index = faiss.IndexIDMap(inner)
    if len(rows):
        index.add_with_ids(GALLERY[rows], IDS[rows])
    return index


def trained(key: str) -> Any:
    inner = faiss.index_factory(D, key, faiss.METRIC_INNER_PRODUCT)
    inner.train(GALLERY)
    return inner


def parts(key: str, added: Any = None) -> tuple[ChangedIndex, Any]:
    """A changed index, and one of the same faces in one piece, trained alike."""
    inner = trained(key)
    rows = np.sort(np.concatenate([ADDED, MOVED])) if added is None else added
    one, two, three = (faiss.clone_index(inner) for _ in range(3))
    changed = ChangedIndex(under_ids(one, BASE), under_ids(two, rows), LEFT)
    whole = np.setdiff1d(np.concatenate([BASE, rows]), np.setdiff1d(GONE, rows))
    return changed, under_ids(three, whole)


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest) -> tuple[ChangedIndex, Any]:
    return parts(request.param)


def test_it_holds_who_counts_under_rising_ids(both: tuple[ChangedIndex, Any]) -> None:
    changed, whole = both
    assert index_size(changed) == index_size(whole) == (len(THERE), D)
    assert np.array_equal(indexed_ids(changed), indexed_ids(whole))


@pytest.mark.parametrize("k", [1, 10, 200, N + A + 5])
def test_its_answers_are_those_of_one_index_asked_everything(both: tuple[ChangedIndex, Any], k: int) -> None:
    changed, whole = both
    got, wanted = (search(one, QUERIES, k=k, settings=EVERYTHING) for one in (changed, whole))
    assert got[0].shape == wanted[0].shape == (len(QUERIES), min(k, len(THERE)))
    np.testing.assert_allclose(got[0], wanted[0], atol=1e-6)
    assert (got[1] == wanted[1]).mean() > 0.999  # last places may tie within a rounding error
    assert not np.isin(got[1], IDS[GONE[5:]]).any()


@pytest.mark.parametrize("share", [0.7, 0.1, 0.004])
def test_filters_act_in_both_parts(both: tuple[ChangedIndex, Any], share: float) -> None:
    changed = both[0]
    passes = np.random.default_rng(1).random(len(THERE)) < share
    masks = [allow_rows(one, passes) for one in both]
    named = [allow(one, indexed_ids(one)[passes]) for one in both]
    assert isinstance(masks[0], AllowedOfBoth)
    assert masks[0].count == named[0].count == masks[1].count == passes.sum()
    for filters in (masks, named):
        got, wanted = (
            search(one, QUERIES, k=10, settings=EVERYTHING, allowed_A=f) for one, f in zip(both, filters, strict=True)
        )
        assert np.array_equal(got[1], wanted[1])
    without = [leave_out(one, f, wanted[1][:, 0]) for one, f in zip(both, masks, strict=True)]
    assert without[0].count == without[1].count < masks[0].count
    got, again = (
        search(one, QUERIES, k=10, settings=EVERYTHING, allowed_A=f) for one, f in zip(both, without, strict=True)
    )
    assert np.array_equal(got[1], again[1])
    everybody = leave_out(changed, None, wanted[1][:, 0])
    assert everybody.count == len(THERE) - len(np.unique(wanted[1][:, 0]))


def test_where_all_that_were_near_have_left_the_search_goes_on_until_enough_are_found(
    both: tuple[ChangedIndex, Any],
) -> None:
    base = both[0].base
    nearest = search(base, QUERIES[:1], k=300, settings=EVERYTHING)[1][0]
    changed = ChangedIndex(base, both[0].added, np.union1d(nearest, IDS[MOVED]))
    found = search(changed, QUERIES[:1], k=10, settings=EVERYTHING)[1][0]
    assert (found != NOBODY).all()
    of_base = found[~np.isin(found, changed.added_ids)]
    assert not np.isin(of_base, nearest).any()


@pytest.mark.parametrize("key", KINDS)
def test_nobody_added_and_nobody_there_are_no_special_cases(key: str) -> None:
    changed, whole = parts(key, added=np.zeros(0, np.int64))
    assert index_size(changed)[0] == index_size(whole)[0] == len(BASE) - len(GONE)
    got, wanted = (search(one, QUERIES, k=7, settings=EVERYTHING)[1] for one in (changed, whole))
    assert np.array_equal(got, wanted)
    empty = ChangedIndex(changed.base, changed.added, IDS[BASE])
    assert index_size(empty)[0] == 0
    assert search(empty, QUERIES, k=7)[1].shape == (len(QUERIES), 0)


def test_equal_cosines_of_both_parts_are_ordered_by_face_id() -> None:
    vector = np.repeat(GALLERY[:1], 6, axis=0)
    ids = np.arange(1, 7, dtype=np.int64)
    base, added = (faiss.IndexIDMap(faiss.IndexFlatIP(D)) for _ in range(2))
    base.add_with_ids(vector[:3], ids[1::2])
    added.add_with_ids(vector[:3], ids[::2])
    found = search(ChangedIndex(base, added, np.array([4])), vector[:1], k=4)[1]
    assert found.tolist() == [[1, 2, 3, 5]]


def test_its_lists_are_as_uneven_as_those_of_one_index_with_all_that_is_looked_at() -> None:
    key = f"IVF{LISTS},SQ8"
    changed, _ = parts(key)
    rows = np.concatenate([BASE, ADDED, MOVED])
    every = under_ids(trained(key), np.sort(rows))
    assert unevenness_of(changed) == pytest.approx(unevenness_of(every))
    assert unevenness_of(parts("Flat")[0]) is None


def test_parts_that_do_not_fit_are_refused_by_name() -> None:
    changed, whole = parts("Flat")
    stranger = int(np.setdiff1d(IDS, indexed_ids(changed.base))[0])
    with pytest.raises(ArtifactError, match=f"face {stranger} cannot have left the index: it is not there"):
        ChangedIndex(changed.base, changed.added, np.array([stranger]))
    twice = int(IDS[MOVED[0]])
    with pytest.raises(ArtifactError, match=f"face {twice} stands in an index and in its changes"):
        ChangedIndex(changed.base, changed.added, LEFT[twice != LEFT])
    with pytest.raises(ArtifactError, match="an index of 24 dimensions was changed by one of 8"):
        ChangedIndex(changed.base, faiss.IndexIDMap(faiss.IndexFlatIP(8)), LEFT)
    assert whole.ntotal == changed.ntotal
