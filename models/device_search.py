"""The heavy part of exact search, the comparison of all queries with all faces, on a GPU.

Q queries, B faces, P pairs, D dimensions.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.near_pairs import Screen, rounding
from models.on_device import on_device

__all__ = ["screen_on"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_CELLS = 2**24  # of the largest array on the device: 64 MiB


def screen_on(device: str) -> Screen:
    """What `near_pairs` is on the processor, on a device; the pairs may be others, the nearest among them are the same.

    Faces go to the device stretch by stretch, so that it holds some 250 MiB at a time whatever the block and the number of queries.

    Args:
        device: "cuda", "cuda:1", or "cpu" to compare with.

    Returns:
        A function that raises DeviceError where there is no such device, or it has not enough memory left.
    """

    def screen(queries_QD: Floats, faces_BD: Floats, floors_Q: Floats, near: int) -> tuple[Ints, Ints]:
        with on_device(device, f"a comparison of {len(queries_QD):,} queries with {len(faces_BD):,} faces"):
            pairs_P2 = _screened(device, queries_QD, faces_BD, floors_Q, near)
        return pairs_P2[:, 0], pairs_P2[:, 1]

    return screen


def _screened(device: str, queries_QD: Floats, faces_BD: Floats, floors_Q: Floats, near: int) -> Ints:
    off = rounding(queries_QD.shape[1])
    queries, floors = torch.tensor(queries_QD, device=device), torch.tensor(floors_Q, device=device) - off
    step = max(1, _CELLS // max(queries_QD.shape))
    found = []
    for start in range(0, len(faces_BD), step):
        stretch = torch.tensor(faces_BD[start : start + step], device=device)
        pairs, floors = _passing(queries @ stretch.T, floors, min(near, len(stretch)), 2 * off)
        found.append(pairs.cpu().numpy() + np.array([0, start]))
    return np.concatenate(found)


def _passing(cosines_QB: Tensor, floors_Q: Tensor, near: int, room: float) -> tuple[Tensor, Tensor]:
    """Who is no farther than his query's floor, int64 (P, 2); and the floors, raised where `near` faces are above them."""
    crowded_Q = (cosines_QB >= floors_Q[:, None]).sum(dim=1) > near
    if crowded_Q.any():
        lowest = cosines_QB[crowded_Q].topk(near, dim=1, sorted=False).values.amin(dim=1)
        floors_Q[crowded_Q] = torch.maximum(floors_Q[crowded_Q], lowest - room)
    return (cosines_QB >= floors_Q[:, None]).nonzero(), floors_Q
