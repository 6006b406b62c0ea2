import faiss
import numpy as np
import numpy.typing as npt
import pytest

from store.errors import ArtifactError
from store.index_file import build_exact_index, index_size, indexed_ids, load_index, search

Vectors = npt.NDArray[np.float32]


def unit(rng: np.random.Generator, n: int, dimension: int = 16) -> Vectors:
    vectors = rng.standard_normal((n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def ids_of(rng: np.random.Generator, n: int) -> npt.NDArray[np.int64]:
    return np.sort(rng.choice(2**62, n, replace=False).astype(np.int64))


def opened(ids: npt.NDArray[np.int64], vectors: Vectors) -> faiss.Index:
    return load_index(build_exact_index(ids, vectors), where="here")


@pytest.mark.parametrize("queries", [1, 7, 100])
@pytest.mark.parametrize("k", [1, 10, 250, 500])
def test_search_equals_a_matrix_product_that_is_sorted(queries: int, k: int) -> None:
    rng = np.random.default_rng(k)
    ids, vectors, asked = ids_of(rng, 500), unit(rng, 500), unit(rng, queries)
    cosines, found = search(opened(ids, vectors), asked, k=k)
    scores = asked.astype(np.float64) @ vectors.T.astype(np.float64)
    order = np.argsort(-scores, axis=1)[:, :k]
    np.testing.assert_array_equal(found, ids[order])
    np.testing.assert_allclose(cosines, np.take_along_axis(scores, order, axis=1), atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 5, 9, 10, 17, 33, 120, 200])
def test_equal_cosines_are_ordered_by_face_id_even_across_the_last_place(k: int) -> None:
    rng = np.random.default_rng(0)
    places = rng.integers(0, 4, 200)  # 200 faces on four vectors: nothing but ties
    vectors = np.eye(4, dtype=np.float32)[places]
    ids = ids_of(rng, 200)
    query = np.array([[0.1, 0.2, 0.3, 0.927]], np.float32)
    _, found = search(opened(ids, vectors), query, k=k)
    expected = sorted(range(200), key=lambda n: (-query[0, places[n]], ids[n]))[:k]
    assert found[0].tolist() == ids[expected].tolist()


def test_a_gallery_smaller_than_k_gives_all_it_has() -> None:
    rng = np.random.default_rng(1)
    ids, vectors = ids_of(rng, 3), unit(rng, 3)
    cosines, found = search(opened(ids, vectors), vectors[:2], k=10)
    assert found.shape == cosines.shape == (2, 3)
    assert found[:, 0].tolist() == ids[:2].tolist()


def test_an_empty_index_answers_with_nothing() -> None:
    index = opened(np.zeros(0, np.int64), np.zeros((0, 8), np.float32))
    cosines, found = search(index, np.eye(8, dtype=np.float32)[:2], k=5)
    assert found.shape == cosines.shape == (2, 0)
    assert index_size(index) == (0, 8)


def test_a_query_of_another_dimension_is_refused() -> None:
    rng = np.random.default_rng(2)
    index = opened(ids_of(rng, 3), unit(rng, 3))
    with pytest.raises(ArtifactError, match=r"the index holds vectors of 16, the query has shape \(1, 8\)"):
        search(index, unit(rng, 1, 8), k=1)


def test_the_index_says_which_faces_it_holds() -> None:
    rng = np.random.default_rng(3)
    ids = ids_of(rng, 20)
    index = opened(ids, unit(rng, 20))
    assert indexed_ids(index).tolist() == ids.tolist()
    assert index_size(index) == (20, 16)


@pytest.mark.parametrize("ids", [[1, 2, 2, 3], [1, 3, 2, 4]])
def test_ids_that_repeat_or_fall_are_refused_by_name(ids: list[int]) -> None:
    with pytest.raises(ArtifactError, match="face 2 stands twice in the index or out of order"):
        build_exact_index(np.array(ids, np.int64), unit(np.random.default_rng(4), 4))


@pytest.mark.parametrize(("value", "length"), [(np.nan, "nan"), (0.0, "0"), (np.inf, "inf"), (2.0, "8")])
def test_a_vector_that_is_not_of_unit_length_is_refused_by_name(value: float, length: str) -> None:
    vectors = unit(np.random.default_rng(5), 4)
    vectors[2] = value
    with pytest.raises(ArtifactError, match=f"the embedding of face 30 has length {length}, wanted 1"):
        build_exact_index(np.array([10, 20, 30, 40], np.int64), vectors)


def test_equal_faces_give_equal_bytes() -> None:
    ids, vectors = ids_of(np.random.default_rng(6), 30), unit(np.random.default_rng(6), 30)
    assert build_exact_index(ids, vectors) == build_exact_index(ids.copy(), np.asfortranarray(vectors))


@pytest.mark.parametrize("data", [b"", b"nonsense", b"IxFI" + b"\xff" * 200])
def test_bytes_that_are_no_index_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"^here is not an index that FAISS [\d.]+ reads: "):
        load_index(data, where="here")
