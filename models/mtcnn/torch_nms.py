"""Non-maximum suppression by torch, for boxes whose numbers make numpy the slowest part of a GPU's cascade.

Who survives greedy suppression is the only fixed point of

    a box stays if no better box that stays overlaps it over the threshold,

for "better" is an order: the best box stays, so the second one's fate is known, and so on. Applied to all boxes at once,
again and again from "all stay", the sentence is true of the first k boxes of a group after k times at the latest, and of
all of them when nothing changes any more: after as many times as the longest chain of boxes that free each other, some
five. Every operation is float32's own, one at a time as in `nms`, so the result is the same to the last bit.

Shapes: N boxes; G groups of a chunk, filled up to M boxes each; B boxes of a block of them.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.mtcnn.nms import Overlap

__all__ = ["survivors_on"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_BLOCK = 1024  # boxes of one group that are compared with as many others at a time
_PAIRS = 2**24  # that are compared at a time: bounds the memory to some 300 MB
_STEPS = 4  # before asking the device, which must then be waited for, whether anything still changes


@torch.inference_mode()
def survivors_on(device: str, boxes_N4: FloatArray, groups_N: IntArray, overlap: Overlap) -> npt.NDArray[np.bool_]:
    """Which boxes stay, as `nms.survivors` finds them, computed on a device.

    Args:
        device: "cuda", "cuda:1" or "cpu".
        boxes_N4: group by group, the best one of each first.
        groups_N: rising.
        overlap: when two boxes are too many.
    """
    count = len(boxes_N4)
    boxes = torch.from_numpy(np.ascontiguousarray(boxes_N4)).to(device, non_blocking=True)
    alive = torch.ones(count + 1, dtype=torch.bool, device=device)  # the last one stands for what fills groups up
    for starts_G, sizes_G in _chunks(groups_N):
        first_G, size_G = torch.from_numpy(np.stack([starts_G, sizes_G])).to(device, non_blocking=True)
        rank_M = torch.arange(int(sizes_G[0]), device=device)
        place_GM = torch.where(rank_M < size_G[:, None], first_G[:, None] + rank_M, count)
        alive[place_GM] = _settled_in_blocks(boxes[place_GM.clamp(max=count - 1)], place_GM < count, overlap)
    kept_N: npt.NDArray[np.bool_] = alive[:count].cpu().numpy()
    return kept_N


def _chunks(groups_N: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Starts and sizes of groups to be compared together, larger ones first, of a bounded number of pairs."""
    edges = np.flatnonzero(np.diff(groups_N)) + 1
    starts = np.concatenate([[0], edges]).astype(np.int64)
    sizes = np.diff(np.concatenate([starts, [len(groups_N)]]))
    falling = np.argsort(-sizes, kind="stable")
    starts, sizes = starts[falling], sizes[falling]
    start = 0
    while start < len(sizes) and sizes[start]:
        together = slice(start, start + max(1, _PAIRS // min(int(sizes[start]), _BLOCK) ** 2))
        yield starts[together], sizes[together]
        start = together.stop


def _settled_in_blocks(boxes_GM4: Tensor, alive_GM: Tensor, overlap: Overlap) -> Tensor:
    """Who of each group stays: block by block, and each block's survivors against all later ones."""
    corners_4GM = boxes_GM4.permute(2, 0, 1).contiguous()
    sides_2GM = corners_4GM[2:] - corners_4GM[:2] + overlap.extra_px
    measured_5GM = torch.cat([corners_4GM, (sides_2GM[0] * sides_2GM[1])[None]])
    blocks = [slice(start, start + _BLOCK) for start in range(0, alive_GM.shape[1], _BLOCK)]
    alive_GM = alive_GM.clone()
    for number, block in enumerate(blocks):
        better_5GB = measured_5GM[:, :, block]
        over_GBB = _over(better_5GB, better_5GB, overlap).triu(diagonal=1)
        alive_GM[:, block] = _settled(alive_GM[:, block], over_GBB)
        for later in blocks[number + 1 :]:
            over_GBB = _over(better_5GB, measured_5GM[:, :, later], overlap)
            alive_GM[:, later] &= _not_overlapped(alive_GM[:, block], over_GBB)
    return alive_GM


def _settled(there_GB: Tensor, over_GBB: Tensor) -> Tensor:
    """The fixed point."""
    alive_GB = there_GB
    while True:
        for _ in range(_STEPS):
            before_GB, alive_GB = alive_GB, there_GB & _not_overlapped(alive_GB, over_GBB)
        if torch.equal(before_GB, alive_GB):
            return alive_GB


def _not_overlapped(alive_GB: Tensor, over_GBK: Tensor) -> Tensor:
    return ~(alive_GB[:, :, None] & over_GBK).any(dim=1)


def _over(better_5GB: Tensor, others_5GK: Tensor, overlap: Overlap) -> Tensor:
    """Whether each of `better` overlaps each of `others` over the threshold, (G, B, K)."""
    x1, y1, x2, y2, area = better_5GB[..., None]
    other_x1, other_y1, other_x2, other_y2, other_area = others_5GK[:, :, None]
    width = torch.minimum(x2, other_x2).sub_(torch.maximum(x1, other_x1)).add_(overlap.extra_px)
    height = torch.minimum(y2, other_y2).sub_(torch.maximum(y1, other_y1)).add_(overlap.extra_px)
    common = width.clamp_(min=0).mul_(height.clamp_(min=0))
    whole = torch.minimum(area, other_area) if overlap.by_smaller else (area + other_area).sub_(common)
    return common.div_(whole) > _float32_below(overlap.threshold)


def _float32_below(value: float) -> float:
    """The largest float32 up to `value`: what a float32 exceeds exactly when it exceeds `value`."""
    nearest = np.float32(value)
    return float(nearest if float(nearest) <= value else np.nextafter(nearest, np.float32(-np.inf)))
