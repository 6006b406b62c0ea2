"""Pixels to a network's input on the processor: where axes, colour order and pixel range change.

`preprocess_tensors` does the same in torch, for what trains and for GPUs. This file needs NumPy alone, so that a process
which embeds by an ONNX file starts without torch.

N faces, H rows, W columns, C channels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.card import InputSpec
from models.encoder_error import EncoderError

__all__ = ["check_faces", "preprocess_faces"]


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


def preprocess_faces(faces_NHWC: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """A batch of faces as a network takes it: (pixel * scale - mean) / std, channels in the card's order.

    Args:
        faces_NHWC: uint8, (N, H, W, 3), RGB, at the card's height and width.
        spec: the card's input.

    Returns:
        float32, (N, 3, H, W), contiguous.
    """
    channels_NCHW = faces_NHWC.transpose(0, 3, 1, 2)
    if spec.colour == "bgr":
        channels_NCHW = channels_NCHW[:, ::-1]
    inputs_NCHW = np.array(channels_NCHW, dtype=np.float32, order="C")
    inputs_NCHW *= np.float32(spec.scale)
    inputs_NCHW -= np.array(spec.mean, np.float32).reshape(1, 3, 1, 1)
    inputs_NCHW /= np.array(spec.std, np.float32).reshape(1, 3, 1, 1)
    return inputs_NCHW
