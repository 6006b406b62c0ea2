"""Spherical k-means on a GPU, or wherever torch computes: the centres of an index of lists.

The same sample and seed give the same centres on the same device: a list's vectors are summed as whole numbers, whose sum does not
depend on the order in which a GPU's threads come to it.

S vectors of a sample, L lists, B vectors of a stretch, D dimensions.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from models.on_device import on_device

__all__ = ["centres_of"]

_CELLS = 2**24  # of the cosines of a stretch: 64 MiB
_WHOLE = (
    2.0**32
)  # steps of a component from 0 to 1; of unit vectors a list holds 2^31 before their sum does not fit any more
_APART = 2.0**-10  # by which the halves of a split list are moved apart


def centres_of(
    sample_SD: npt.NDArray[np.float32], lists: int, *, device: str, iterations: int = 8, seed: int = 1234
) -> npt.NDArray[np.float32]:
    """Unit vectors that the sample's crowd around, float32 (L, D).

    The device holds the sample, which is as large as 40 vectors a list, and a few hundred MiB.

    Args:
        sample_SD: float32, unit length.
        lists: how many, from 1 to S.
        device: "cuda", "cuda:1", or "cpu".
        iterations: of all vectors to the nearest centre and centres to the middle of their vectors, as often as where FAISS trains.
        seed: draws the vectors that centres begin at.

    Raises:
        DeviceError: there is no such device, or it has too little memory; the message says which.

    References:
        Dhillon, Modha. Concept Decompositions for Large Sparse Text Data Using Clustering. Machine Learning 42, 2001. A list without
        vectors takes half of the largest, as in FAISS; of several, each takes another's.
    """
    first_L = np.random.default_rng(seed).choice(len(sample_SD), lists, replace=False)
    with on_device(device, f"{lists:,} lists and {len(sample_SD):,} faces to train them on"):
        return _found(torch.tensor(sample_SD, device=device), torch.tensor(first_L, device=device), iterations)


def _found(sample_SD: Tensor, first_L: Tensor, iterations: int) -> npt.NDArray[np.float32]:
    centres_LD = sample_SD[first_L]
    for _ in range(iterations):
        sums_LD, counts_L = _sums(sample_SD, centres_LD)
        centres_LD = functional.normalize(_without_empty(sums_LD, counts_L))
    found: npt.NDArray[np.float32] = centres_LD.cpu().numpy()
    return found


def _sums(sample_SD: Tensor, centres_LD: Tensor) -> tuple[Tensor, Tensor]:
    """What each list's vectors sum to, float32 (L, D), and how many they are, int64 (L,)."""
    lists, dimension = centres_LD.shape
    sums_LD = torch.zeros((lists, dimension), dtype=torch.int64, device=sample_SD.device)
    counts_L = torch.zeros(lists, dtype=torch.int64, device=sample_SD.device)
    for stretch_BD in torch.split(sample_SD, max(1, _CELLS // max(lists, 2 * dimension))):
        nearest_B = (stretch_BD @ centres_LD.T).argmax(dim=1)
        sums_LD.index_add_(0, nearest_B, (stretch_BD * _WHOLE).long())
        counts_L.index_add_(0, nearest_B, torch.ones_like(nearest_B))
    return (sums_LD.double() / _WHOLE).float(), counts_L


def _without_empty(sums_LD: Tensor, counts_L: Tensor) -> Tensor:
    """Sums, where each list without vectors has got a half of one with many, the largest first."""
    empty_E = (counts_L == 0).nonzero()[:, 0]
    if not len(empty_E):
        return sums_LD
    by_size = counts_L.argsort(descending=True, stable=True)[: len(counts_L) - len(empty_E)]
    halved_E = by_size.repeat(-(-len(empty_E) // len(by_size)))[: len(empty_E)]
    signs_D = torch.ones_like(sums_LD[0])
    signs_D[1::2] = -1
    sums_LD[empty_E] = sums_LD[halved_E] * (1 - _APART * signs_D)
    sums_LD[halved_E] = sums_LD[halved_E] * (1 + _APART * signs_D)
    return sums_LD
