"""Non-maximum suppression: of overlapping boxes of one group, keep the one with the highest score.

The order of boxes is made here; which of the ordered ones survive is computed here too, by numpy, or by a function of the
caller's: a runtime on a GPU brings its own (`torch_nms`).

Boxes are float32 (N, 4): x1, y1, x2, y2; scores float32 (N,); groups int64 (N,), rising: boxes of different groups do not
touch each other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Overlap", "Survivors", "suppress_by_smaller", "suppress_by_union", "survivors"]

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_BLOCK = 128  # boxes compared with all later ones of their group at a time: bounds the memory
_LATER = np.triu(np.ones((_BLOCK, _BLOCK), dtype=bool), k=1)


@dataclass(frozen=True)
class Overlap:
    """When two boxes show the same thing.

    Args:
        threshold: the common area's share of the whole that is still allowed, in [0, 1].
        extra_px: added to a difference of coordinates to get a side.
        by_smaller: the whole is the smaller one of both areas, otherwise their union.
    """

    threshold: float
    extra_px: int
    by_smaller: bool


Survivors = Callable[[FloatArray, IndexArray, Overlap], BoolArray]
"""Which boxes stay, bool (N,), given float32 (N, 4) by falling score in each group and their groups, int64 (N,), rising."""


def survivors(boxes_N4: FloatArray, groups_N: IndexArray, overlap: Overlap) -> BoolArray:
    """Which boxes stay, by numpy: a box goes when a better one that stays overlaps it over the threshold.

    Args:
        boxes_N4: group by group, the best one of each first.
        groups_N: rising.
        overlap: when two boxes are too many.
    """
    area_N = np.prod(boxes_N4[:, 2:] - boxes_N4[:, :2] + np.float32(overlap.extra_px), axis=1)
    alive_N = np.ones(len(boxes_N4), dtype=bool)
    for start in range(0, len(boxes_N4), _BLOCK):
        better = slice(start, min(start + _BLOCK, len(boxes_N4)))
        others = slice(start, int(np.searchsorted(groups_N, groups_N[better.stop - 1], side="right")))
        share_MK = _overlap(boxes_N4, area_N, better, others, overlap)
        over_MK = (share_MK > np.float64(overlap.threshold)) & (groups_N[better, None] == groups_N[others])
        over_MK[:, : len(over_MK)] &= _LATER[: len(over_MK), : len(over_MK)]
        for i in np.flatnonzero(over_MK.any(axis=1)):
            if alive_N[start + i]:
                alive_N[start + i + 1 : others.stop] &= ~over_MK[i, i + 1 :]
    return alive_N


def suppress_by_union(
    boxes_N4: FloatArray,
    scores_N: FloatArray,
    groups_N: IndexArray,
    *,
    iou_threshold: float,
    by: Survivors = survivors,
) -> IndexArray:
    """The boxes that stay when overlap is intersection over union, as indices by rising group and falling score.

    A box goes when its overlap with a better one that stays is over the threshold. Of equal scores the first one is
    better. Sides are x2 - x1. `by` computes who survives.
    """
    order_N = np.lexsort((-scores_N, groups_N))
    overlap = Overlap(iou_threshold, extra_px=0, by_smaller=False)
    kept: IndexArray = order_N[by(boxes_N4[order_N], groups_N[order_N], overlap)]
    return kept


def suppress_by_smaller(
    boxes_N4: FloatArray,
    scores_N: FloatArray,
    groups_N: IndexArray,
    *,
    threshold: float,
    by: Survivors = survivors,
) -> IndexArray:
    """The boxes that stay when overlap is intersection over the smaller of both areas, as indices by rising group and
    falling score.

    So a box inside another one goes, however small it is. Sides are x2 - x1 + 1. Scores are sorted upwards by numpy's default
    sort and taken from the end, as facenet-pytorch does: ONet's often tie at exactly 1, and another order of equals would
    keep another box in about one photo of 500. That sort need not be stable and may order equals otherwise on another CPU.
    `by` computes who survives.
    """  # noqa: D205
    falling = [first + np.argsort(scores_N[first:end])[::-1] for first, end in _runs(groups_N)]
    order_N = np.concatenate(falling) if falling else np.empty(0, dtype=np.int64)
    kept: IndexArray = order_N[
        by(boxes_N4[order_N], groups_N[order_N], Overlap(threshold, extra_px=1, by_smaller=True))
    ]
    return kept


def _overlap(boxes_N4: FloatArray, area_N: FloatArray, better: slice, others: slice, overlap: Overlap) -> FloatArray:
    """The share that each of `better` has in common with each of `others`, (M, K)."""
    extra = np.float32(overlap.extra_px)
    one_4M1, other_4K = boxes_N4[better].T[..., None], boxes_N4[others].T
    width_MK, height_MK = (
        np.minimum(one_4M1[k + 2], other_4K[k + 2]) - np.maximum(one_4M1[k], other_4K[k]) + extra for k in (0, 1)
    )
    common_MK = np.maximum(width_MK, 0, out=width_MK)
    common_MK *= np.maximum(height_MK, 0, out=height_MK)
    one_M1, other_K = area_N[better, None], area_N[others]
    whole_MK = np.minimum(one_M1, other_K) if overlap.by_smaller else one_M1 + other_K - common_MK
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes without area overlap nothing
        share_MK: FloatArray = common_MK / whole_MK
    return share_MK


def _runs(groups_N: IndexArray) -> Iterator[tuple[int, int]]:
    """First and end of each group."""
    edges = np.flatnonzero(np.diff(groups_N)) + 1
    if len(groups_N):
        yield from zip([0, *edges.tolist()], [*edges.tolist(), len(groups_N)], strict=True)
