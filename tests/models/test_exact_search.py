import numpy as np
import numpy.typing as npt
import pytest

from models.exact_search import recalls, search_exactly

Vectors = npt.NDArray[np.float32]


def unit(seed: int, n: int, dimension: int = 12) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def sorted_out(queries: Vectors, faces: dict[int, Vectors], k: int) -> list[list[int]]:
    """Every face compared with every query by a double loop, in float64."""
    found = []
    for query in queries:
        scored = [(-float(query.astype(np.float64) @ v), i) for i, v in faces.items()]
        found.append([i for _, i in sorted(scored)[:k]])
    return found


def test_blocks_give_what_a_double_loop_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.exact_search._BLOCK", 47)
    queries, vectors, ids = unit(0, 5), unit(1, 300), np.arange(1_000, 1_300)
    found = search_exactly(queries, ids, vectors, k=20)
    assert found.ids.tolist() == sorted_out(queries, dict(zip(ids.tolist(), vectors, strict=True)), 20)
    np.testing.assert_allclose(found.cosines, -np.sort(-(queries @ vectors.T), axis=1)[:, :20], atol=1e-6)


def test_fewer_faces_than_asked_for_are_all_found() -> None:
    assert search_exactly(unit(0, 2), np.arange(3), unit(1, 3), k=8).ids.shape == (2, 3)


def test_equal_cosines_are_ordered_by_face_id_in_whatever_block_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.exact_search._BLOCK", 2)
    face = np.eye(4, dtype=np.float32)[[0]]
    assert search_exactly(face, np.array([9, 4, 7, 5]), face[[0] * 4], k=4).ids.tolist() == [[4, 5, 7, 9]]


def test_recall_counts_what_was_found_and_what_ties_with_the_last_place_and_nobody_else() -> None:
    queries = np.eye(3, dtype=np.float32)[[0]]
    angles = np.array([0.1, 0.2, 0.3, 0.3, 0.9])
    faces = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1).astype(np.float32)
    ids = np.array([10, 20, 30, 40, 50])
    exact = search_exactly(queries, ids, faces, k=3)

    def recall(*found: int, k: int = 3) -> float:
        return float(recalls(np.array([found]), exact, queries, ids, faces, k=k)[0])

    assert recall(10, 20, 30) == 1
    assert recall(10, 20, 40) == 1  # as near as face 30
    assert recall(10, 50, 20) == pytest.approx(2 / 3)
    assert recall(10, -1, -1) == pytest.approx(1 / 3)
    assert recall(20, 10, 30, k=1) == 0
    assert recall(11, 12, 13) == 0  # faces that there are not
