import numpy as np
import numpy.typing as npt

from models.exact_search import NearestFaces

Vectors = npt.NDArray[np.float32]


def unit(rng: np.random.Generator, n: int, dimension: int = 12) -> Vectors:
    vectors = rng.standard_normal((n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def sorted_out(queries: Vectors, faces: dict[int, Vectors], k: int) -> list[list[int]]:
    """Every face compared with every query by a double loop, in float64."""
    found = []
    for query in queries:
        scored = [(-float(query.astype(np.float64) @ v), i) for i, v in faces.items()]
        found.append([i for _, i in sorted(scored)[:k]])
    return found


def test_blocks_added_one_by_one_give_what_a_double_loop_gives() -> None:
    rng = np.random.default_rng(0)
    queries, vectors = unit(rng, 5), unit(rng, 300)
    near = NearestFaces.of(queries, depth=20)
    for rows in np.array_split(rng.permutation(300), 7):
        near = near.added(rows.astype(np.int64), vectors[rows])
    assert near.ids.tolist() == sorted_out(queries, dict(enumerate(vectors)), 20)
    assert near.sure().tolist() == [20] * 5


def test_fewer_faces_than_places_leave_places_empty_and_all_are_sure() -> None:
    rng = np.random.default_rng(1)
    near = NearestFaces.of(unit(rng, 2), depth=8).added(np.arange(3), unit(rng, 3))
    assert (near.ids == -1).sum() == 10
    assert near.sure().tolist() == [8, 8]


def test_equal_cosines_are_ordered_by_face_id() -> None:
    face = np.eye(4, dtype=np.float32)[[0]]
    near = NearestFaces.of(face, depth=3)
    for identity in (9, 4, 7, 5):
        near = near.added(np.array([identity]), face)
    assert near.ids.tolist() == [[4, 5, 7]]


def test_fifty_rounds_of_changes_keep_every_sure_place_right() -> None:
    rng = np.random.default_rng(2)
    queries = unit(rng, 6)
    pool, there = unit(rng, 3_000), set(range(1_000))
    near = NearestFaces.of(queries, depth=60).added(np.arange(1_000), pool[:1_000])
    fewest = 60
    for turn in range(50):
        gone = rng.choice(sorted(there), 15, replace=False)
        fresh = np.arange(1_000 + 20 * turn, 1_020 + 20 * turn)
        there = (there - set(gone.tolist())) | set(fresh.tolist())
        near = near.removed(gone).added(fresh, pool[fresh])
        wanted = sorted_out(queries, {i: pool[i] for i in there}, 60) if turn % 10 == 9 else None
        for n, sure in enumerate(near.sure()):
            fewest = min(fewest, int(sure))
            if wanted:
                assert near.ids[n, :sure].tolist() == wanted[n][:sure]
    assert 0 < fewest < 60  # places were lost, and said to be


def test_a_removed_face_makes_the_last_place_unsure_until_it_is_known_to_be_right() -> None:
    queries = np.eye(2, dtype=np.float32)[[0]]
    angles = np.array([0.1, 0.2, 0.3, 0.4])
    faces = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    near = NearestFaces.of(queries, depth=3).added(np.arange(4), faces)
    assert near.removed(np.array([1])).sure().tolist() == [2]
    again = near.removed(np.array([1])).added(np.array([8]), faces[[0]])
    assert again.sure().tolist() == [3]
    assert again.ids.tolist() == [[0, 8, 2]]


def test_parts_searched_apart_and_merged_are_one_search_of_all_of_them_with_equal_cosines_and_empty_places() -> None:
    rng = np.random.default_rng(4)
    queries = unit(rng, 5)
    pool = unit(rng, 90)
    pool[40:] = pool[:50]  # so that many cosines are equal
    ids = rng.permutation(90).astype(np.int64)
    for depth in (7, 30, 200):
        nobody = NearestFaces.of(queries, depth=depth)
        parts = [(ids[rows], pool[rows]) for rows in np.array_split(rng.permutation(90), 6)]
        one_search = nobody
        for part in parts:
            one_search = one_search.added(*part)
        merged = nobody
        for part in reversed(parts):
            merged = merged.merged(nobody.added(*part))
        for name in ("ids", "cosines", "hidden"):
            assert getattr(merged, name).tobytes() == getattr(one_search, name).tobytes(), (depth, name)


def test_merging_where_nobody_asks_is_nobody() -> None:
    nobody = NearestFaces.of(np.zeros((0, 12), np.float32), depth=0)
    assert nobody.merged(nobody) is nobody
