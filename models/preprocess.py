"""Pixels to a network's input: the only place where axes, colour order and pixel range change.

N faces, H rows, W columns, C channels, D dimensions of an embedding.
"""

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.card import InputSpec
from models.encoder_error import EncoderError

__all__ = ["check_faces", "normalise_pixels", "preprocess_faces"]


def check_faces(faces_NHWC: NDArray[Any], spec: InputSpec) -> None:
    """Refuse what is not a batch of faces at the size the card names.

    Raises:
        EncoderError: not uint8 or not (N, H, W, 3); the message names the dtype and shape received and wanted.
    """
    wanted = (spec.height, spec.width, 3)
    got = getattr(faces_NHWC, "shape", ()), getattr(faces_NHWC, "dtype", type(faces_NHWC).__name__)
    if not isinstance(faces_NHWC, np.ndarray) or got[1] != np.uint8 or len(got[0]) != 4 or got[0][1:] != wanted:
        raise EncoderError(
            f"faces to embed: got {got[1]} {got[0]}, wanted uint8 (N, {spec.height}, {spec.width}, 3), RGB; "
            "cut and resize them as the encoder's card says"
        )


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


def preprocess_faces(faces_NHWC: NDArray[np.uint8], spec: InputSpec, *, device: str = "cpu") -> Tensor:
    """A batch of faces as a network takes it.

    Args:
        faces_NHWC: uint8, (N, H, W, 3), RGB, at the card's height and width.
        spec: the card's input.
        device: where the result is computed and stays; pixels travel there as bytes, a quarter of floats.

    Returns:
        float32, (N, 3, H, W); contiguous on the processor, channels last in memory elsewhere.
    """
    if device != "cpu":
        bytes_NHWC = torch.from_numpy(np.ascontiguousarray(faces_NHWC)).to(device)
        return normalise_pixels(bytes_NHWC.permute(0, 3, 1, 2).float(), spec)
    pixels_NCHW = torch.from_numpy(np.ascontiguousarray(faces_NHWC.transpose(0, 3, 1, 2), dtype=np.float32))
    return normalise_pixels(pixels_NCHW, spec).contiguous()


@functools.lru_cache(maxsize=64)
def _a_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A value a channel, (1, 3, 1, 1), kept on the device: sending it anew would hold up a GPU each time."""
    with torch.inference_mode(False):  # kept tensors serve training too
        return torch.tensor(values, dtype=dtype, device=device).reshape(1, 3, 1, 1)
