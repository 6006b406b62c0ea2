import numpy as np
import pytest

from models.exact_search import NearestFaces
from models.recall import recalls

QUERY = np.eye(3, dtype=np.float32)[[0]]
ANGLES = np.array([0.1, 0.2, 0.3, 0.3, 0.9])
FACES = np.stack([np.cos(ANGLES), np.sin(ANGLES), 0 * ANGLES], axis=1).astype(np.float32)
IDS = np.array([10, 20, 30, 40, 50])


def recall(*found: int, k: int = 3, kept: int = 5) -> float:
    exact = NearestFaces.of(QUERY, depth=kept).added(IDS, FACES)
    return float(recalls(np.array([found]), exact, k=k)[0])


def test_recall_counts_what_was_found_and_what_ties_with_the_last_place_and_nobody_else() -> None:
    assert recall(10, 20, 30) == 1
    assert recall(10, 20, 40) == 1  # as near as face 30
    assert recall(10, 50, 20) == pytest.approx(2 / 3)
    assert recall(10, -1, -1) == pytest.approx(1 / 3)
    assert recall(20, 10, 30, k=1) == 0
    assert recall(11, 12, 13) == 0  # faces that there are not


def test_a_tie_beyond_what_was_kept_is_not_counted() -> None:
    assert recall(10, 20, 40, kept=3) == pytest.approx(2 / 3)


def test_nobody_kept_is_nobody_found() -> None:
    assert recall(10, 20, 30, 40, 50, -1, -1, -1, k=8, kept=8) == 1  # five faces are all there are
    assert recall(10, 20, -1, -1, -1, -1, -1, -1, k=8, kept=8) == pytest.approx(2 / 5)


def test_of_no_faces_nothing_is_missed() -> None:
    assert recalls(np.zeros((1, 0), np.int64), NearestFaces.of(QUERY, depth=4), k=3).tolist() == [1.0]
