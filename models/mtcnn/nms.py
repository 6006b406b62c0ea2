"""Non-maximum suppression: of overlapping boxes, keep the one with the highest score.

Boxes are float32 (N, 4): x1, y1, x2, y2; scores float32 (N,).
"""

import numpy as np
import numpy.typing as npt

__all__ = ["suppress_by_smaller", "suppress_by_union"]

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]


def suppress_by_union(boxes_N4: FloatArray, scores_N: FloatArray, *, iou_threshold: float) -> IndexArray:
    """The boxes that stay when overlap is intersection over union, as indices by falling score.

    A box goes when its overlap with a better one that stays is over the threshold. Of equal scores the first one is
    better. Sides are x2 - x1.
    """
    order_N = np.argsort(-scores_N, kind="stable")
    return _suppress(boxes_N4, order_N, threshold=iou_threshold, extra_px=0, by_smaller=False)


def suppress_by_smaller(boxes_N4: FloatArray, scores_N: FloatArray, *, threshold: float) -> IndexArray:
    """The boxes that stay when overlap is intersection over the smaller of both areas, as indices by falling score.

    So a box inside another one goes, however small it is. Sides are x2 - x1 + 1. Scores are sorted upwards by numpy's default
    sort and taken from the end, as facenet-pytorch does: ONet's often tie at exactly 1, and another order of equals would
    keep another box in about one photo of 500. That sort need not be stable and may order equals otherwise on another CPU.
    """
    order_N = np.argsort(scores_N)[::-1]
    return _suppress(boxes_N4, order_N, threshold=threshold, extra_px=1, by_smaller=True)


def _suppress(
    boxes_N4: FloatArray, order_N: IndexArray, *, threshold: float, extra_px: int, by_smaller: bool
) -> IndexArray:
    first_N2, last_N2 = boxes_N4[:, :2], boxes_N4[:, 2:]
    extra = np.float32(extra_px)
    area_N = np.prod(last_N2 - first_N2 + extra, axis=1)
    kept = []
    while order_N.size:
        best, order_N = order_N[0], order_N[1:]
        kept.append(best)
        common_M2 = np.minimum(last_N2[best], last_N2[order_N]) - np.maximum(first_N2[best], first_N2[order_N]) + extra
        common_M = np.prod(np.maximum(common_M2, 0), axis=1)
        other_M = area_N[order_N]
        whole_M = np.minimum(area_N[best], other_M) if by_smaller else area_N[best] + other_M - common_M
        with np.errstate(divide="ignore", invalid="ignore"):  # boxes without area overlap nothing
            order_N = order_N[~(common_M / whole_M > np.float64(threshold))]
    return np.array(kept, dtype=np.int64)
