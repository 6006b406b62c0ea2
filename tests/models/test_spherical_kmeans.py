"""Centres of lists. The slow way, vector by vector, is the oracle."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.spherical_kmeans import centres_of

Vectors = npt.NDArray[np.float32]
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU at hand")


def unit(rng: np.random.Generator, n: int, dimension: int = 12) -> Vectors:
    vectors = rng.standard_normal((n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def slowly(sample: Vectors, lists: int, *, iterations: int, seed: int) -> Vectors:
    centres = sample[np.random.default_rng(seed).choice(len(sample), lists, replace=False)]
    for _ in range(iterations):
        sums = np.zeros(centres.shape)
        for vector in sample:
            sums[max(range(lists), key=lambda n: float(vector @ centres[n]))] += vector
        centres = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
    return centres


def nearness(sample: Vectors, centres: Vectors) -> float:
    return float((sample @ centres.T).max(axis=1).mean())


SAMPLE = unit(np.random.default_rng(0), 600)


@pytest.mark.parametrize("cells", [2**24, 7 * 24])
def test_centres_are_those_of_the_slow_way_however_the_sample_is_cut(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.spherical_kmeans._CELLS", cells)
    found = centres_of(SAMPLE, 9, device="cpu", iterations=4, seed=7)
    np.testing.assert_allclose(found, slowly(SAMPLE, 9, iterations=4, seed=7), atol=1e-6)


def test_the_same_sample_and_seed_give_the_same_bytes_and_another_seed_others() -> None:
    one, again, other = (centres_of(SAMPLE, 16, device="cpu", seed=seed) for seed in (3, 3, 4))
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-6)


def test_what_a_list_sums_to_does_not_depend_on_the_order_of_its_vectors() -> None:
    from models.spherical_kmeans import _sums

    centres = torch.from_numpy(unit(np.random.default_rng(1), 5))
    order = np.random.default_rng(2).permutation(len(SAMPLE))
    one, other = (_sums(torch.from_numpy(rows), centres) for rows in (SAMPLE, SAMPLE[order]))
    assert one[0].equal(other[0])
    assert one[1].equal(other[1])


def test_a_list_that_nobody_is_near_takes_half_of_the_largest() -> None:
    rng = np.random.default_rng(3)
    crowd = np.eye(12, dtype=np.float32)[0] + 0.05 * rng.standard_normal((300, 12)).astype(np.float32)
    twins = np.repeat(unit(rng, 1), 200, axis=0)  # whose lists but one are empty at first
    sample = np.concatenate([crowd / np.linalg.norm(crowd, axis=1, keepdims=True), twins]).astype(np.float32)
    centres = centres_of(sample, 24, device="cpu")
    sizes = np.bincount((sample @ centres.T).argmax(axis=1), minlength=24)
    assert (sizes > 0).sum() >= 20
    assert sizes.max() == 200
    assert nearness(sample, centres) > nearness(sample, slowly(sample[:300], 24, iterations=1, seed=1))


def test_all_vectors_alike_are_no_error() -> None:
    centres = centres_of(np.repeat(SAMPLE[:1], 40, axis=0), 8, device="cpu")
    assert np.isfinite(centres).all()
    np.testing.assert_allclose(centres @ SAMPLE[0], 1, atol=1e-3)


@on_a_gpu
def test_a_gpu_gives_the_same_bytes_twice_and_centres_as_near_as_the_processors() -> None:
    sample = unit(np.random.default_rng(4), 20_000, 64)
    one, again = (centres_of(sample, 256, device="cuda") for _ in range(2))
    assert one.tobytes() == again.tobytes()
    assert nearness(sample, one) == pytest.approx(nearness(sample, centres_of(sample, 256, device="cpu")), abs=2e-3)
