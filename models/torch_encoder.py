"""A network of this project with its weights, as safetensors bytes; pickle is never read.

N faces, H rows, W columns, D dimensions of an embedding.
"""

from collections.abc import Mapping

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from models.card import EncoderCard
from models.encoder_error import EncoderError
from models.inception_resnet_v1 import SMALLEST_INPUT_PX, InceptionResnetV1, without_classifier
from models.torch_threads import torch_threads

__all__ = ["TorchNetwork", "problems_of_state_dict"]

NAMED = 3


class TorchNetwork:
    """Preprocessed faces to raw embeddings, by an Inception-ResNet V1.

    Args:
        weights: a safetensors file's bytes; `logits.*`, a published file's classifier, is left out.
        card: its dimension and input size must suit the weights.
        width: the network's width.
        device: where torch runs it.
        threads: threads within one operation, on the processor.

    Raises:
        EncoderError: the bytes are not safetensors, tensors are missing, unknown or of another shape, or the card's
            input is too small for the network; the message names the first few.
    """

    def __init__(
        self, weights: bytes, card: EncoderCard, *, width: float, device: str = "cpu", threads: int = 1
    ) -> None:
        if min(card.input.height, card.input.width) < SMALLEST_INPUT_PX:
            raise EncoderError(
                f"card: input {card.input.height} x {card.input.width}, wanted at least {SMALLEST_INPUT_PX} px a side "
                "for Inception-ResNet V1; correct the card"
            )
        network = InceptionResnetV1(width, card.dimension)
        state_dict = without_classifier(_read(weights))
        if problems := problems_of_state_dict(state_dict, wanted=network.state_dict()):
            more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
            raise EncoderError(
                f"weights do not fit {card.architecture} with {card.dimension} dimensions: "
                f"{'; '.join(problems[:NAMED])}{more}; correct the card's architecture and dimension"
            )
        network.load_state_dict(state_dict)
        self._network = network.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        self._threads = threads

    def __call__(self, inputs_NCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings, float32 (N, D), of preprocessed faces, float32 (N, 3, H, W)."""
        with torch.inference_mode(), torch_threads(self._threads):
            inputs = torch.from_numpy(inputs_NCHW).to(device=self._device, memory_format=torch.channels_last)
            embeddings: NDArray[np.float32] = self._network(inputs).float().cpu().numpy()
        return embeddings


def problems_of_state_dict(state_dict: Mapping[str, Tensor], *, wanted: Mapping[str, Tensor]) -> list[str]:
    """One phrase for each tensor that is missing, unknown or of another shape; empty if it loads strictly."""
    missing = [f"{name} is missing" for name in wanted if name not in state_dict]
    unknown = [f"{name} is unknown" for name in state_dict if name not in wanted]
    shapes = [
        f"{name} is {tuple(state_dict[name].shape)}, wanted {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state_dict and state_dict[name].shape != tensor.shape
    ]
    return missing + unknown + shapes


def _read(weights: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(weights)
    except SafetensorError as error:
        raise EncoderError(
            f"weights: {len(weights)} bytes that are not a safetensors file ({error}); convert them first"
        ) from error
