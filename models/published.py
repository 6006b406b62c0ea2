"""The published Inception-ResNet V1 weights, as facenet-pytorch releases them, read without executing anything."""

import io
import pickle

import torch
from safetensors.torch import save

from models.card import BoxMargin, EncoderCard, InputSpec
from models.encoder_error import EncoderError

__all__ = ["PUBLISHED_CARD", "published_to_safetensors"]

PUBLISHED_CARD = EncoderCard(
    format=1,
    architecture="inception-resnet-v1",
    input=InputSpec(
        height=160, width=160, colour="rgb", scale=1.0, mean=(127.5, 127.5, 127.5), std=(128.0, 128.0, 128.0)
    ),
    geometry=BoxMargin(box_margin=0.0),
    mirror_average=False,
    dimension=512,
)
"""How the published weights are used: 160 x 160 RGB of the MTCNN box, (x - 127.5) / 128, 512 dimensions."""


def published_to_safetensors(data: bytes) -> bytes:
    """A published state dict as safetensors, without its classification head.

    Args:
        data: the `.pt` file's bytes.

    Raises:
        EncoderError: the bytes are no plain state dict; nothing in them was executed.
    """
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise EncoderError(
            f"the file holds no plain state dict ({type(error).__name__}); nothing in it was run"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise EncoderError(f"the file holds {type(state).__name__}, wanted a state dict of tensors")
    kept = {name: value.contiguous() for name, value in state.items() if not name.startswith("logits.")}
    return save(kept)
