"""What the nets' outputs become, on whatever runtime they were computed."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Cells", "difference_at", "softmax_of_two"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cells:
    """PNet's windows that may pass, in no particular order.

    Args:
        place: int64, (M,), which of the layout's tiles each lies in.
        row: int64, (M,), in cells of the tile.
        column: int64, (M,), likewise.
        score: float32, (M,), in [0, 1].
        shift: float32, (M, 4), corrections of x1, y1, x2, y2 in sides of the window.
    """

    place: IntArray
    row: IntArray
    column: IntArray
    score: FloatArray
    shift: FloatArray


def softmax_of_two(logits_N2: FloatArray) -> FloatArray:
    """The second one's share, float32 (N,); rounded as torch rounds it, since ONet's often tie at exactly 1."""
    shifted_N2 = np.exp(logits_N2 - logits_N2.max(axis=1, keepdims=True))
    share_N: FloatArray = shifted_N2[:, 1] / (shifted_N2[:, 0] + shifted_N2[:, 1])
    return share_N


def difference_at(share: float) -> float:
    """The difference of two logits at which `softmax_of_two` gives the second one this share, in [0, 1]."""
    return math.log(share / (1 - share)) if 0 < share < 1 else math.inf * (share - 0.5)
