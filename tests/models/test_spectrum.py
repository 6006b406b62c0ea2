import numpy as np
import pytest

from models.spectrum import variance_spectrum

RNG = np.random.default_rng(0)


def test_shares_are_the_singular_values_squared() -> None:
    emb = RNG.normal(size=(50, 6)) * [5, 4, 3, 2, 1, 0.1] + 7
    singular = np.linalg.svd(emb - emb.mean(axis=0), compute_uv=False) ** 2
    spectrum = variance_spectrum(emb)
    np.testing.assert_allclose(spectrum.shares, singular / singular.sum(), rtol=1e-9)
    assert spectrum.variance == pytest.approx(emb.var(axis=0).sum())


def test_directions_that_carry_alike_count_fully_and_one_alone_counts_once() -> None:
    even = np.concatenate([np.eye(5), -np.eye(5)])
    assert variance_spectrum(even).effective_rank == pytest.approx(5)
    assert variance_spectrum(np.outer(RNG.normal(size=20), [3, 4, 0])).effective_rank == pytest.approx(1)


def test_faces_that_are_one_point_have_no_rank() -> None:
    spectrum = variance_spectrum(np.ones((10, 4), np.float32))
    assert (spectrum.effective_rank, spectrum.variance, spectrum.shares.sum()) == (0, 0, 0)


@pytest.mark.parametrize("shape", [(1, 4), (4,), (0, 4)])
def test_too_few_embeddings_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"embeddings: got \(.*wanted \(N, D\) with N of at least 2"):
        variance_spectrum(np.ones(shape))
