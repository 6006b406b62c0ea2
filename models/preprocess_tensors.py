"""Pixels to a network's input in torch, to the last bit what `preprocess` makes of them.

N images, C channels, H rows, W columns.
"""

import functools

import torch
from torch import Tensor

from models.card import InputSpec

__all__ = ["normalise_pixels"]


def normalise_pixels(pixels_NCHW: Tensor, spec: InputSpec) -> Tensor:
    """A network's input, (pixel * scale - mean) / std, channels in the card's order.

    Args:
        pixels_NCHW: floating, (N, 3, H, W), RGB, in [0, 255].
        spec: the card's input.

    Returns:
        Same dtype, shape and device.
    """
    if spec.colour == "bgr":
        pixels_NCHW = pixels_NCHW.flip(1)
    mean, std = (_a_channel(values, pixels_NCHW.dtype, pixels_NCHW.device) for values in (spec.mean, spec.std))
    return (pixels_NCHW * spec.scale - mean) / std


@functools.lru_cache(maxsize=64)
def _a_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A value a channel, (1, 3, 1, 1), kept on the device: sending it anew would hold up a GPU each time."""
    with torch.inference_mode(False):  # kept tensors serve training too
        return torch.tensor(values, dtype=dtype, device=device).reshape(1, 3, 1, 1)
