"""A network of this project on the processor, as fast as its embeddings allow.

N faces, H rows, W columns, D dimensions of an embedding.
"""

import functools

import numpy as np
import torch
from numpy.typing import NDArray

from models.architectures import FaceNetwork
from models.card import InputSpec
from models.openvino_network import OpenVinoNetwork
from models.openvino_precision import multiplies_bfloat16
from models.portraits import draw_person, draw_portrait
from models.preprocess import preprocess_faces
from models.torch_threads import torch_threads

__all__ = ["TRIAL_COSINE", "processor_network"]

TRIAL_COSINE = 0.99993
"""Faces of LFW moved half as far again as the drawn ones of the trial (benchmarks/embed.py), and are to stay over 0.9999."""

_TRIAL_FACES = 4


def processor_network(
    network: FaceNetwork, spec: InputSpec, *, threads: int = 1, full_precision: bool = False
) -> OpenVinoNetwork:
    """The network on OpenVINO, with the convolutions it names in bfloat16 where that leaves its embeddings alone.

    How far rounding moves an embedding depends on the weights and on the input's size (the fewer positions the last layers
    average over, the further). So four drawn faces are tried, the same ones each time, against the network in float32.

    Args:
        network: in evaluation mode.
        spec: of its input.
        threads: of one call.
        full_precision: float32 throughout, whatever the processor can.
    """

    def on_openvino(layers: tuple[str, ...]) -> OpenVinoNetwork:
        return OpenVinoNetwork(network, height=spec.height, width=spec.width, threads=threads, bfloat16_layers=layers)

    if full_precision or not network.bfloat16_layers or not multiplies_bfloat16():
        return on_openvino(())
    mixed = on_openvino(network.bfloat16_layers)
    if mixed.bfloat16_convolutions and _smallest_cosine(network, mixed, spec, threads) > TRIAL_COSINE:
        return mixed
    return on_openvino(())


def _smallest_cosine(network: FaceNetwork, mixed: OpenVinoNetwork, spec: InputSpec, threads: int) -> float:
    """Of the trial faces' embeddings in float32 and in part bfloat16; not a number if one of them is none."""
    inputs_NCHW = preprocess_faces(_trial_faces(spec.height, spec.width), spec)
    with torch.inference_mode(), torch_threads(threads):
        exact_ND = network(torch.from_numpy(inputs_NCHW)).numpy()
    return float((exact_ND * mixed(inputs_NCHW)).sum(axis=1, dtype=np.float64).min())


@functools.cache
def _trial_faces(height: int, width: int) -> NDArray[np.uint8]:
    """Drawn people, uint8 (N, H, W, 3), their faces in the middle."""
    side = max(64, height, width) * 5 // 4
    top, left = (side - height) // 2, (side - width) // 2
    drawn = (
        draw_portrait(draw_person(number), view_seed=number, size_px=side) for number in range(1, 1 + _TRIAL_FACES)
    )
    return np.stack([picture[top : top + height, left : left + width] for picture in drawn])
