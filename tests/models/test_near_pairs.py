"""Who is nearest does not depend on how the heavy comparison was rounded. A sum without any rounding is the oracle."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.device_search import screen_on
from models.exact_search import NearestFaces
from models.near_pairs import Screen, near_pairs, pair_cosines, rounding

Vectors = npt.NDArray[np.float32]
D, DEPTH = 48, 30
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU at hand")


def unit(vectors: npt.NDArray[np.float64]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def all_but_alike(rng: np.random.Generator, query: Vectors, count: int) -> Vectors:
    """Faces that are all as near to a query as to half an angle of 120 degrees, but for rounding."""
    aside = rng.standard_normal((count, len(query)))
    aside -= (aside @ query)[:, None] * query
    return unit(0.5 * query + math.sqrt(0.75) * unit(aside))


def gallery() -> tuple[Vectors, npt.NDArray[np.int64], Vectors]:
    """Queries, and faces: strangers, some the same vector twice, and some of which no float32 product knows who is nearer."""
    rng = np.random.default_rng(5)
    queries = unit(rng.standard_normal((9, D)))
    strangers = unit(rng.standard_normal((500, D)))
    faces = np.concatenate([strangers, strangers[:60], all_but_alike(rng, queries[0], 300)])
    order = rng.permutation(len(faces))
    return queries, rng.choice(2**40, len(faces), replace=False).astype(np.int64), faces[order]


QUERIES, IDS, FACES = gallery()


def oracle(depth: int) -> list[list[tuple[np.float32, int]]]:
    found = []
    for query in QUERIES.astype(np.float64):
        exact = [(np.float32(math.fsum(query * face)), int(i)) for i, face in zip(IDS, FACES, strict=True)]
        found.append(sorted(exact, key=lambda one: (-one[0], one[1]))[:depth])
    return found


def searched(screen: Screen, *, block: int, queries: Vectors = QUERIES) -> NearestFaces:
    near = NearestFaces.of(queries, depth=DEPTH)
    for start in range(0, len(IDS), block):
        near = near.added(IDS[start : start + block], FACES[start : start + block], screen=screen)
    return near


def same(one: NearestFaces, other: NearestFaces) -> bool:
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in ("ids", "cosines", "hidden"))


def as_wrong_as_may_be(queries: Vectors, faces: Vectors, floors: Vectors, near: int) -> tuple[object, object]:
    """The slow way to screen, with every product off by as much as D sums in float32 allow, one way or the other."""
    rng = np.random.default_rng(len(faces))
    off = rounding(D)
    exact = queries.astype(np.float64) @ faces.astype(np.float64).T
    wrong = exact + D * 2.0**-24 * rng.choice([-1, 1], exact.shape)
    lowest = np.sort(wrong, axis=1)[:, -min(near, len(faces))]
    return np.nonzero(wrong >= np.maximum(floors - off, lowest - 2 * off)[:, None])


@pytest.mark.parametrize("block", [7, 100, 860])
def test_the_nearest_are_those_of_sums_without_rounding_however_faces_are_cut_into_blocks(block: int) -> None:
    near, wanted = searched(near_pairs, block=block), oracle(DEPTH + 1)
    for n, query in enumerate(wanted):
        assert near.ids[n].tolist() == [i for _, i in query[:DEPTH]]
        assert near.cosines[n].tolist() == [cosine for cosine, _ in query[:DEPTH]]
        assert near.hidden[n] == query[DEPTH][0]


def test_a_product_in_float32_alone_would_get_the_order_wrong() -> None:
    plain = (QUERIES[:1] @ FACES.T)[0]
    order = np.lexsort((IDS, -plain))[:DEPTH]
    assert IDS[order].tolist() != [i for _, i in oracle(DEPTH)[0]]


@pytest.mark.parametrize("block", [33, 860])
def test_another_device_finds_the_same_faces_and_cosines_to_the_last_bit(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = searched(near_pairs, block=block)
    assert same(searched(screen_on("cpu"), block=block), wanted)
    monkeypatch.setattr("models.device_search._CELLS", 40 * D)  # stretches of forty faces
    assert same(searched(screen_on("cpu"), block=block), wanted)


def test_products_as_wrong_as_float32_allows_find_the_same_faces_and_cosines() -> None:
    assert same(searched(as_wrong_as_may_be, block=100), searched(near_pairs, block=100))


def test_after_faces_went_another_device_fills_their_places_alike() -> None:
    gone = np.unique(searched(near_pairs, block=860).ids[:, ::3])
    stay = ~np.isin(IDS, gone)
    one, other = (
        searched(near_pairs, block=860).removed(gone).added(IDS[stay][::2] + 2**50, FACES[stay][::2], screen=screen)
        for screen in (near_pairs, screen_on("cpu"))
    )
    assert same(one, other)


def test_far_fewer_pairs_than_there_are_are_compared_once_the_nearest_are_known() -> None:
    near = searched(near_pairs, block=860, queries=QUERIES[1:])
    floors = np.minimum(near.cosines[:, -1], near.hidden)
    for screen in (near_pairs, screen_on("cpu")):
        asked, faces = screen(QUERIES[1:], FACES, floors, DEPTH + 1)
        assert len(asked) == len(faces) < 1.2 * 8 * (DEPTH + 1)


@pytest.mark.parametrize("dimension", [8, 512, 2_048])
def test_no_product_is_off_by_more_than_is_made_room_for(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    one, other = (unit(rng.standard_normal((200, dimension))) for _ in range(2))
    other[:50] = one[:50]
    every = tuple(axis.ravel() for axis in np.indices((200, 200)))
    off = np.abs((one @ other.T)[every] - pair_cosines(one, other, *every))
    assert 0 < off.max() < rounding(dimension) / 4


def test_a_cosine_is_the_same_to_the_last_bit_in_whatever_order_it_is_summed_and_beside_whatever_pairs() -> None:
    asked, faces = (axis.ravel() for axis in np.indices((len(QUERIES), len(FACES))))
    wanted = pair_cosines(QUERIES, FACES, asked, faces)
    order = np.random.default_rng(6).permutation(D)
    assert pair_cosines(QUERIES[:, order], FACES[:, order], asked, faces).tobytes() == wanted.tobytes()
    for n in range(0, len(asked), 311):
        assert pair_cosines(QUERIES, FACES, asked[n : n + 1], faces[n : n + 1])[0] == wanted[n]


@on_a_gpu
@pytest.mark.parametrize("block", [33, 860])
def test_a_gpu_finds_the_same_faces_and_cosines_to_the_last_bit(block: int) -> None:
    assert same(searched(screen_on("cuda"), block=block), searched(near_pairs, block=block))
