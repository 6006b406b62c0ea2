from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from store import index_scan, index_search
from store.index_filter import allow
from store.index_search import SearchSettings, parts_of, search

Rows = npt.NDArray[np.int64]
N, D, K = 3_000, 32, 10
RNG = np.random.default_rng(0)
IDS = np.sort(RNG.choice(2**62, N, replace=False).astype(np.int64))


def unit(n: int) -> npt.NDArray[np.float32]:
    vectors = RNG.standard_normal((n, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


GALLERY, QUERIES = unit(N), unit(70)


@pytest.fixture(scope="module")
def index() -> Any:
    inner = faiss.index_factory(D, "PCA12,PQ6x4fs,Refine(SQ8)", faiss.METRIC_INNER_PRODUCT)
    inner.train(GALLERY)
    index = faiss.IndexIDMap(inner)
    index.add_with_ids(GALLERY, IDS)
    return index


def asked(index: Any, rows: Rows, *, compared: int, queries: npt.NDArray[np.float32] = QUERIES) -> tuple[Any, Rows]:
    parts, allowed = parts_of(index), allow(index, IDS[rows])
    return index_scan.scan_allowed(
        parts.base, parts.finer, queries, k=K, compared=compared, bits=allowed.bits, there=allowed.count
    )


@pytest.mark.parametrize("share", [0.9, 0.3])
def test_the_best_allowed_by_short_codes_are_compared_again_and_nobody_else(
    index: Any, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_scan, "_MORE", 3.0)  # so that there are enough for every query
    rows = np.flatnonzero(np.random.default_rng(1).random(N) < share)
    cosines, found = asked(index, rows, compared=40)
    parts = parts_of(index)
    finer = parts.finer.reconstruct_n(0, N) @ QUERIES.T
    for n, query in enumerate(QUERIES):
        short, by_code = (one[0] for one in parts.base.search(query[None], N))
        short, by_code = short[np.isin(by_code, rows)], by_code[np.isin(by_code, rows)]
        sure, maybe = by_code[short > short[39]], by_code[short >= short[39]]  # equal short codes are in no order
        assert set(found[n].tolist()) <= set(maybe.tolist())
        best = maybe[np.argsort(-finer[maybe, n])[:K]]
        assert set(best.tolist()) & set(sure.tolist()) <= set(found[n].tolist())
        np.testing.assert_allclose(cosines[n], np.sort(finer[found[n], n])[::-1], atol=1e-6)


def test_a_filter_that_keeps_out_just_those_who_are_near_is_answered_from_all_who_are_left(index: Any) -> None:
    query = QUERIES[:1]
    far = np.sort(np.argsort(-(GALLERY @ query[0]))[N // 2 :])
    _, found = asked(index, far, compared=200, queries=query)
    finer = parts_of(index).finer.reconstruct_n(0, N)[far] @ query[0]
    np.testing.assert_array_equal(found[0], far[np.argsort(-finer)[:K]])


def test_who_asks_for_more_than_are_compared_again_or_allowed_gets_those_there_are(index: Any) -> None:
    cosines, found = asked(index, np.array([3, 5, 2_000]), compared=400)
    assert all(sorted(line[:3]) == [3, 5, 2_000] for line in found.tolist())
    assert (found[:, 3:] == -1).all()
    assert np.isneginf(cosines[:, 3:]).all()


@pytest.mark.parametrize("share", [0.999, 0.5, 0.06])
def test_a_search_under_a_wide_filter_finds_what_exact_search_finds(
    index: Any, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_search, "_FEW", 100)
    monkeypatch.setattr(index_scan, "_TIMES_COMPARED", 0)
    used: list[int] = []
    real = index_search.scan_allowed
    monkeypatch.setattr(index_search, "scan_allowed", lambda *a, **k: used.append(k["there"]) or real(*a, **k))
    rows = np.flatnonzero(np.random.default_rng(2).random(N) < share)
    _, found = search(index, QUERIES, k=K, settings=SearchSettings(refine=300), allowed_A=IDS[rows])
    assert set(used) == {len(rows)}
    wanted = IDS[rows[np.argsort(-(QUERIES @ GALLERY[rows].T), axis=1)[:, :K]]]
    overlap = np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), wanted.tolist(), strict=True)])
    assert overlap > 0.97
    assert set(found.ravel().tolist()) <= set(IDS[rows].tolist())


@pytest.mark.parametrize(
    ("there", "compared", "scanned"),
    [(50_000, 750, True), (49_999, 750, False), (60_000, 15_000, True), (59_999, 15_000, False)],
)
def test_few_who_are_allowed_are_sooner_compared_one_by_one(there: int, compared: int, scanned: bool) -> None:
    assert index_scan.pays(there, 1_000_000, compared) == scanned
