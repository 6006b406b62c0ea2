from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from store.errors import ArtifactError
from store.index_file import build_exact_index, load_index
from store.index_filter import allow, allow_rows, leave_out
from store.index_search import NOBODY, SearchSettings, indexed_ids, search

Vectors = npt.NDArray[np.float32]
N, D, LISTS = 3_000, 24, 32


def unit(rng: np.random.Generator, n: int) -> Vectors:
    vectors = rng.standard_normal((n, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


RNG = np.random.default_rng(0)
IDS = np.sort(RNG.choice(2**62, N, replace=False).astype(np.int64))
GALLERY, QUERIES = unit(RNG, N), unit(RNG, 20)
EVERYTHING = SearchSettings(nprobe=LISTS, refine=300, ef=4_000)


def index_of(key: str, ids: npt.NDArray[np.int64] = IDS) -> Any:
    inner = faiss.index_factory(D, key, faiss.METRIC_INNER_PRODUCT)
    inner.train(GALLERY)
    index = faiss.IndexIDMap(inner)
    index.add_with_ids(GALLERY, ids)
    return index


KINDS = [
    "Flat",
    f"IVF{LISTS},Flat",
    f"IVF{LISTS},SQ8",
    f"RR{D},IVF{LISTS},RaBitQ,Refine(SQ8)",
    f"PCA8,IVF{LISTS},SQ8,Refine(SQ8)",
    f"IVF{LISTS},PQ8x4,Refine(SQ8)",
    "PCA16,PQ8x4fs,Refine(SQ8)",
    "HNSW16,Flat",
]


@pytest.fixture(scope="module", params=KINDS)
def index(request: pytest.FixtureRequest) -> Any:
    return index_of(request.param)


def exact(queries: Vectors, rows: npt.NDArray[np.int64], k: int) -> list[list[int]]:
    scores = queries.astype(np.float64) @ GALLERY[rows].T.astype(np.float64)
    return [IDS[rows[np.argsort(-line)[:k]]].tolist() for line in scores]


def overlap(found: npt.NDArray[np.int64], wanted: list[list[int]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), wanted, strict=True)]))


def test_every_kind_finds_what_a_matrix_product_finds_when_it_looks_everywhere(index: Any) -> None:
    cosines, found = search(index, QUERIES, k=10, settings=EVERYTHING)
    assert overlap(found, exact(QUERIES, np.arange(N), 10)) > 0.97
    assert np.all(np.diff(cosines, axis=1) <= 0)


@pytest.mark.parametrize("share", [0.5, 0.02, 0.001])
def test_a_filter_acts_inside_the_search(index: Any, share: float) -> None:
    rows = np.flatnonzero(np.random.default_rng(3).random(N) < share)
    _, found = search(index, QUERIES, k=10, settings=EVERYTHING, allowed_A=IDS[rows][::-1])
    assert set(found.ravel().tolist()) <= set(IDS[rows].tolist())
    assert overlap(found, exact(QUERIES, rows, min(10, len(rows)))) > 0.97


def test_a_narrow_filter_is_answered_in_full_though_few_lists_are_asked_for(index: Any) -> None:
    rows = np.array([5, 700, 2_999])
    _, found = search(index, QUERIES, k=10, settings=SearchSettings(nprobe=1, refine=1, ef=4), allowed_A=IDS[rows])
    assert [sorted(line) for line in found.tolist()] == [IDS[rows].tolist()] * len(QUERIES)


def test_a_search_changes_nothing_in_the_index(index: Any) -> None:
    before = bytes(faiss.serialize_index(index))
    search(index, QUERIES, k=10, settings=EVERYTHING, allowed_A=IDS[::3])
    assert bytes(faiss.serialize_index(index)) == before


def test_an_approximate_search_that_finds_fewer_says_nobody() -> None:
    one_list = faiss.IndexIVFFlat(faiss.IndexFlatIP(D), D, LISTS, faiss.METRIC_INNER_PRODUCT)
    one_list.train(GALLERY)
    index = faiss.IndexIDMap(one_list)
    index.add_with_ids(GALLERY[:40], IDS[:40])
    cosines, found = search(index, QUERIES, k=40, settings=SearchSettings(nprobe=1))
    assert (found == NOBODY).any()
    assert np.array_equal(found == NOBODY, np.isneginf(cosines))


def test_more_lists_find_more_and_the_number_travels_with_the_call() -> None:
    index = index_of(f"IVF{LISTS},Flat")
    wanted = exact(QUERIES, np.arange(N), 10)
    recalls = [overlap(search(index, QUERIES, k=10, settings=SearchSettings(nprobe=n))[1], wanted) for n in (1, 8, 32)]
    assert recalls[0] < recalls[1] < recalls[2] == 1
    assert faiss.downcast_index(index.index).nprobe == 1


def test_a_filter_may_be_all_but_some_and_be_used_again() -> None:
    index = load_index(build_exact_index(IDS, GALLERY), where="here")
    first = search(index, QUERIES, k=3)[1]
    rest = allow(index, without=first.ravel())
    assert rest.count == N - len(set(first.ravel().tolist()))
    again = search(index, QUERIES, k=3, allowed_A=rest)[1]
    assert not set(again.ravel().tolist()) & set(first.ravel().tolist())
    np.testing.assert_array_equal(again, search(index, QUERIES, k=3, allowed_A=rest)[1])


@pytest.mark.parametrize("ascend", [True, False])
def test_a_mask_lets_through_whom_a_list_of_ids_lets_through_less_whom_is_left_out(ascend: bool) -> None:
    ids = IDS if ascend else np.random.default_rng(5).permutation(IDS)
    index = index_of("Flat", ids)
    passes = np.random.default_rng(6).random(N) < 0.3
    by_mask, by_ids = allow_rows(index, passes), allow(index, IDS[passes])
    np.testing.assert_array_equal(by_mask.bits, by_ids.bits)
    gone = np.array([*IDS[:20], 7, IDS[3]])  # some pass, some do not, one is unknown, one stands twice
    less, wanted = leave_out(index, by_mask, gone), allow(index, IDS[passes], without=gone)
    np.testing.assert_array_equal(less.bits, wanted.bits)
    assert less.count == wanted.count == by_mask.count - passes[:20].sum()
    assert by_mask.count == by_ids.count == passes.sum()
    everybody = leave_out(index, None, gone)
    assert everybody.count == N - 20


def test_a_filter_finds_its_faces_in_an_index_whose_ids_do_not_ascend() -> None:
    shuffled = np.random.default_rng(4).permutation(IDS)
    index = index_of("Flat", shuffled)
    assert indexed_ids(index).tolist() == IDS.tolist()
    found = search(index, GALLERY[[9]], k=5, allowed_A=shuffled[[9, 100]])[1]
    assert found[0].tolist()[0] == shuffled[9]
    assert set(found[0].tolist()) == {shuffled[9], shuffled[100]}


def test_a_filter_that_allows_nobody_known_answers_with_nothing(index: Any) -> None:
    assert search(index, QUERIES, k=5, allowed_A=np.array([7], np.int64))[1].shape == (len(QUERIES), 0)


def test_equal_cosines_under_a_filter_are_ordered_by_face_id() -> None:
    vectors = np.eye(D, dtype=np.float32)[np.arange(200) % 4]
    index = load_index(build_exact_index(IDS[:200], vectors), where="here")
    allowed = IDS[40:160]
    query = np.zeros((1, D), np.float32)
    query[0, :4] = (0.1, 0.2, 0.3, 0.927)
    found = search(index, query, k=50, allowed_A=allowed)[1]
    wanted = sorted(range(40, 160), key=lambda n: (-query[0, n % 4], IDS[n]))[:50]
    assert found[0].tolist() == IDS[wanted].tolist()


def test_a_query_of_another_dimension_is_refused(index: Any) -> None:
    with pytest.raises(ArtifactError, match=r"the index holds vectors of 24, the query has shape \(1, 8\)"):
        search(index, np.ones((1, 8), np.float32), k=1)
