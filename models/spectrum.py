"""How many directions embeddings really use: what is left of them when they collapse.

N faces, D dimensions of an embedding.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spectrum", "variance_spectrum"]


@dataclass(frozen=True)
class Spectrum:
    """The variance of embeddings along their principal directions.

    Attributes:
        shares: float64 (D,), each direction's share of the variance, falling, sum 1; zeros where nothing varies.
        effective_rank: exp of the shares' entropy, in [1, D]: D where all directions carry alike, 1 where one carries all,
            0 where nothing varies.
        variance: of all directions together, in [0, 1] for unit vectors; 0 when all faces are one point.
    """

    shares: NDArray[np.float64]
    effective_rank: float
    variance: float


def variance_spectrum(emb_ND: NDArray[np.floating[Any]]) -> Spectrum:
    """The spectrum of a set of embeddings about their mean.

    Args:
        emb_ND: floating, (N, D), N at least 2.

    Raises:
        ValueError: not (N, D) with N of at least 2; the message names the shape.

    References:
        Roy, Vetterli. The Effective Rank: A Measure of Effective Dimensionality. EUSIPCO 2007; here of the covariance.
    """
    if emb_ND.ndim != 2 or len(emb_ND) < 2:
        raise ValueError(f"embeddings: got {emb_ND.shape}, wanted (N, D) with N of at least 2")
    centred_ND = emb_ND.astype(np.float64) - emb_ND.mean(axis=0, dtype=np.float64)
    values_D = np.linalg.eigvalsh(centred_ND.T @ centred_ND / len(emb_ND))[::-1].clip(min=0)
    variance = float(values_D.sum())
    if variance < 1e-12:
        return Spectrum(np.zeros(emb_ND.shape[1]), 0.0, 0.0)
    shares_D = values_D / variance
    used = shares_D[shares_D > 0]
    return Spectrum(shares_D, float(np.exp(-(used * np.log(used)).sum())), variance)
