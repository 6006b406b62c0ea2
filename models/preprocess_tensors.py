"""Pixels to a network's input in torch, to the last bit what `preprocess` makes of them.

N faces, H rows, W columns, C channels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.card import InputSpec

__all__ = ["normalise_pixels", "preprocess_on_device"]


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
    mean = pixels_NCHW.new_tensor(spec.mean).reshape(1, 3, 1, 1)
    std = pixels_NCHW.new_tensor(spec.std).reshape(1, 3, 1, 1)
    return (pixels_NCHW * spec.scale - mean) / std


def preprocess_on_device(faces_NHWC: NDArray[np.uint8], spec: InputSpec, *, device: str) -> Tensor:
    """A batch of faces as a network takes it.

    Args:
        faces_NHWC: uint8, (N, H, W, 3), RGB, at the card's height and width.
        spec: the card's input.
        device: where the result is computed and stays; pixels travel there as bytes, a quarter of floats.

    Returns:
        float32, (N, 3, H, W), channels last in memory.
    """
    bytes_NHWC = torch.from_numpy(np.ascontiguousarray(faces_NHWC)).to(device)
    return normalise_pixels(bytes_NHWC.permute(0, 3, 1, 2).float(), spec)
