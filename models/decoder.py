"""The decoder: from an embedding back to the crop, for training only.

N faces, D dimensions of an embedding, C channels, H rows, W columns.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Decoder"]

SMALLEST_GRID = 4


class _Upsample(nn.Module):
    """Twice the grid by repeating cells, then convolution, batch-norm, ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        wider_NCHW = functional.interpolate(x_NCHW, scale_factor=2.0, mode="nearest")
        return functional.relu(self.bn(self.conv(wider_NCHW)))


class Decoder(nn.Module):
    """Rebuilds a crop from its embedding: a grid of 4 to 7 cells a side, doubled until it has the crop's size.

    Args:
        dimension: length of an embedding.
        height: of the crop, in pixels, at least 16.
        width: of the crop, in pixels, at least 16.
        channels: of the last grid; every coarser one has twice as many, at most 16 times.

    Raises:
        ValueError: an argument out of range; the message names it.

    References:
        Odena, Dumoulin, Olah. Deconvolution and Checkerboard Artifacts. Distill 2016: resize, then convolve. Ours repeats
        cells and ends at half the crop's size, bilinear from there: faces need no finer detail to keep their identity.
    """

    def __init__(self, dimension: int, height: int, width: int, *, channels: int = 8) -> None:
        super().__init__()
        for name, value, least in (
            ("dimension", dimension, 1),
            ("height", height, 16),
            ("width", width, 16),
            ("channels", channels, 1),
        ):
            if value < least:
                raise ValueError(f"{name}: got {value}, wanted at least {least}")
        doublings = (min(height, width) // SMALLEST_GRID).bit_length() - 1
        self.dimension, self.height, self.width = dimension, height, width
        self.grid = (-(-height // 2**doublings), -(-width // 2**doublings))
        widths = [channels * 2 ** min(4, level) for level in range(doublings - 1, -1, -1)]
        self.first = nn.Linear(dimension, widths[0] * self.grid[0] * self.grid[1])
        self.blocks = nn.Sequential(*(_Upsample(a, b) for a, b in pairwise(widths)))
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, emb_ND: Tensor) -> Tensor:
        """Rebuild crops.

        Args:
            emb_ND: float32, (N, D).

        Returns:
            float32, (N, 3, H, W), RGB in (0, 1): pixels / 255.
        """
        coarse_NCHW = functional.relu(self.first(emb_ND).unflatten(1, (-1, *self.grid)))
        small_NCHW = self.last(self.blocks(coarse_NCHW))
        large_NCHW = functional.interpolate(small_NCHW, scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.sigmoid(large_NCHW[:, :, : self.height, : self.width])
