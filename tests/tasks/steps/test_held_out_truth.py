"""Exact neighbours that are carried on through changes, against those searched anew among all faces."""

from typing import Any

import numpy as np
import pytest

from benchmarks.face_vectors import FaceVectors
from tasks.steps.face_blocks import Gallery
from tasks.steps.held_out_queries import HeldOutQueries
from tasks.steps.held_out_truth import Changed, HeldOut, carried, let_through, read_truth, searched, truth_parquet

N, D, Q = 6_000, 32, 60
DRAWN = FaceVectors(N, D)
VECTORS = np.concatenate([vectors for _, vectors in DRAWN.stream()])
IDS = np.sort(np.random.default_rng(1).choice(2**62, N, replace=False).astype(np.int64))
THERE = np.arange(0, 4_000)


def gallery(rows: Any) -> Gallery:
    return Gallery(IDS[rows], VECTORS[rows])


def held(rows: Any = THERE, made_of: Any = THERE[:Q]) -> HeldOut:
    return searched("gate", HeldOutQueries(IDS[made_of], DRAWN.queries(Q)), gallery(rows))


def change(out: Any, new: Any) -> Changed:
    return Changed(IDS[np.sort(out)], IDS[np.sort(new)], VECTORS[np.sort(new)])


@pytest.fixture(autouse=True)
def a_few_queries_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.steps.held_out_truth.HELD_OUT", Q)


def test_after_rounds_of_changes_what_counts_is_what_a_search_of_all_faces_finds() -> None:
    rng, there, now = np.random.default_rng(2), THERE, held()
    for _ in range(8):
        out = rng.choice(there[Q:], 20, replace=False)
        new = rng.choice(np.setdiff1d(np.arange(N), there), 40, replace=False)
        after = carried(now, change(out, new), faces=len(there) + 20)
        assert after is not None
        now, there = after, np.sort(np.concatenate([np.setdiff1d(there, out), new]))
    fresh = held(there)
    for share, depth in ((1.0, 100), (0.1, 10), (0.01, 10)):
        assert np.array_equal(now.near[share].ids[:, :depth], fresh.near[share].ids[:, :depth])
        np.testing.assert_allclose(now.near[share].cosines[:, :depth], fresh.near[share].cosines[:, :depth], atol=1e-6)
    assert now.added_since == 320


def test_who_moved_to_another_shard_keeps_his_place() -> None:
    before, moved = held(), THERE[5:50:3]
    after = carried(before, change(moved, moved), faces=len(THERE))
    assert after is not None
    assert np.array_equal(after.near[1.0].ids, before.near[1.0].ids)
    assert (len(after.faces), after.added_since) == (Q, 0)


def test_queries_of_faces_that_are_gone_go_with_them_and_half_of_them_ask_for_new_ones() -> None:
    after = carried(held(), change(THERE[:10], THERE[:0]), faces=len(THERE) - 10)
    assert after is not None
    assert after.faces.tolist() == IDS[10:Q].tolist()
    assert len(after.near[0.1].queries) == Q - 10
    assert carried(held(), change(THERE[: Q // 2 + 1], THERE[:0]), faces=len(THERE)) is None


def test_where_a_tenth_of_the_faces_came_since_queries_are_made_anew() -> None:
    new = np.arange(4_000, 4_450)
    assert carried(held(), change(THERE[:0], new[:440]), faces=4_440) is not None
    assert carried(held(), change(THERE[:0], new), faces=4_450) is None


def test_where_too_many_of_the_nearest_are_gone_they_are_searched_anew() -> None:
    near = np.searchsorted(IDS, held().near[1.0].ids[7, :97])
    gone = near[near >= Q]
    assert carried(held(), change(gone, THERE[:0]), faces=len(THERE)) is None
    assert carried(held(), change(gone[:60], THERE[:0]), faces=len(THERE)) is not None


def test_a_filter_lets_about_its_share_through_and_the_same_faces_whoever_else_is_there() -> None:
    ids = np.random.default_rng(0).choice(2**62, 20_000, replace=False)
    for share in (0.1, 0.01):
        through = let_through(ids, share)
        assert through.mean() == pytest.approx(share, rel=0.2)
        assert np.array_equal(let_through(ids[::3], share), through[::3])
    assert let_through(np.arange(20_000), 0.1).mean() == pytest.approx(0.1, rel=0.2)  # ids that are no hashes too


def test_what_is_written_is_read() -> None:
    sets = (searched("tune", HeldOutQueries(IDS[:Q], DRAWN.queries(Q)), gallery(THERE)), held())
    read = read_truth(truth_parquet(sets, dimension=D), dimension=D, where="here")
    assert list(read) == ["tune", "gate"]
    for one in sets:
        again = read[one.purpose]
        assert (again.purpose, again.added_since, list(again.near)) == (one.purpose, 0, list(one.near))
        assert np.array_equal(again.faces, one.faces)
        for share, near in one.near.items():
            assert all(
                np.array_equal(getattr(again.near[share], name), getattr(near, name))
                for name in ("queries", "ids", "cosines", "hidden")
            )
