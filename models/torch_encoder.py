"""A network of this project: read from safetensors bytes (pickle is never read), and run in torch.

N faces, H rows, W columns, D dimensions of an embedding.
"""

from collections.abc import Mapping

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.architectures import FaceNetwork, build_network, without_classifier
from models.card import EncoderCard
from models.encoder_error import EncoderError
from models.fold_batch_norm import fold_batch_norm
from models.fuse_relu import fuse_relu
from models.torch_threads import torch_threads

__all__ = ["TorchNetwork", "empty_network", "first_few", "problems_of_state_dict", "read_network"]

NAMED = 3


class TorchNetwork:
    """Preprocessed faces to embeddings, in torch: batch-norms folded, channels last.

    On a GPU convolutions are computed in float16, each in one step with the sum and the ReLU behind it; pooling, the last layer
    and the length are float32. float16 and not bfloat16, which is as fast: its rounding is eight times finer, which neighbours
    notice (benchmarks/embed.py). What it lacks is range, so a network that leaves it goes on in float32. On the processor
    everything is float32.

    Args:
        network: in evaluation mode; it is taken over: its weights may be moved and rounded.
        device: "cpu", "cuda" or "cuda:1".
        convolutions: their precision; None takes what the device is fast in.
        threads: threads within one operation, on the processor.

    Raises:
        EncoderError: a GPU is asked for and there is none.
    """

    def __init__(
        self, network: nn.Module, *, device: str = "cpu", convolutions: torch.dtype | None = None, threads: int = 1
    ) -> None:
        precision = convolutions or _fast_precision(device)
        folded = fold_batch_norm(network)
        self._network = folded if device.startswith("cpu") else fuse_relu(folded)
        self._compute_in(precision)
        self._network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        self._threads = threads

    @property
    def exact(self) -> bool:
        """Whether convolutions are computed in float32."""
        return self._dtype == torch.float32

    def compute_exactly(self) -> None:
        """Go on in float32."""
        self._compute_in(torch.float32)

    def on_device(self, inputs_NCHW: Tensor) -> Tensor:
        """Embeddings, float32 (N, D), left on the device, of preprocessed faces, float32 (N, 3, H, W)."""
        inputs = inputs_NCHW.to(device=self._device, dtype=self._dtype, memory_format=torch.channels_last)
        embeddings: Tensor = self._network(inputs)
        return embeddings.float()

    def __call__(self, inputs_NCHW: Tensor) -> NDArray[np.float32]:
        """Embeddings, float32 (N, D), of preprocessed faces, float32 (N, 3, H, W), on whatever device."""
        with torch.inference_mode(), torch_threads(self._threads):
            embeddings = self.on_device(inputs_NCHW)
            if self._dtype == torch.float16 and not bool(torch.isfinite(embeddings).all()):
                self.compute_exactly()
                embeddings = self.on_device(inputs_NCHW)
            found: NDArray[np.float32] = embeddings.cpu().numpy()
        return found

    def _compute_in(self, precision: torch.dtype) -> None:
        self._dtype = precision
        for module in self._network.modules():
            if isinstance(module, nn.Conv2d):
                module.to(precision)


def read_network(weights: bytes, card: EncoderCard) -> FaceNetwork:
    """The network that a card names, with its weights, in evaluation mode, on the processor, in float32.

    Args:
        weights: a safetensors file's bytes; a published file's classifier is left out.
        card: its dimension and input size must suit the weights.

    Raises:
        EncoderError: the architecture is unknown, the bytes are not safetensors, tensors are missing, unknown or of another
            shape or kind, or the card's input is too small for the network; the message names the first few.
    """
    network = empty_network(card)
    state_dict = without_classifier(network, _read(weights))
    if problems := problems_of_state_dict(state_dict, wanted=network.state_dict()):
        raise EncoderError(
            f"weights do not fit {card.architecture} with {card.dimension} dimensions: "
            f"{first_few(problems)}; correct the card's architecture and dimension"
        )
    floats = {name: value.float() if value.is_floating_point() else value for name, value in state_dict.items()}
    network.load_state_dict(floats, assign=True)
    return network.eval()


def empty_network(card: EncoderCard) -> FaceNetwork:
    """The network that a card names, on torch's meta device: names, shapes and kinds, and no memory for weights.

    Raises:
        EncoderError: the architecture is unknown, or the card's input is too small for it.
    """
    with torch.device("meta"):
        network = build_network(card.architecture or "none", card.dimension)
    if min(card.input.height, card.input.width) < network.smallest_input_px:
        raise EncoderError(
            f"card: input {card.input.height} x {card.input.width}, wanted at least {network.smallest_input_px} px a side "
            f"for {card.architecture}; correct the card"
        )
    return network


def problems_of_state_dict(state_dict: Mapping[str, Tensor], *, wanted: Mapping[str, Tensor]) -> list[str]:
    """One phrase for each tensor that is missing, unknown or of another shape or kind; empty if it loads strictly."""
    missing = [f"{name} is missing" for name in wanted if name not in state_dict]
    unknown = [f"{_shown(name)} is unknown" for name in state_dict if name not in wanted]
    pairs = [(name, state_dict[name], tensor) for name, tensor in wanted.items() if name in state_dict]
    shapes = [
        f"{name} is {tuple(got.shape)}, wanted {tuple(want.shape)}"
        for name, got, want in pairs
        if got.shape != want.shape
    ]
    kinds = [
        f"{name} is {got.dtype}, wanted {want.dtype}"
        for name, got, want in pairs
        if got.is_floating_point() != want.is_floating_point() or got.is_complex()
    ]
    return missing + unknown + shapes + kinds


def first_few(problems: list[str]) -> str:
    """The first problems in one phrase, and how many more there are."""
    more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return f"{'; '.join(problems[:NAMED])}{more}"


def _read(weights: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(weights)
    except Exception as error:  # a stranger's bytes: besides its own errors KeyError, ValueError and more were seen
        why = _shown(str(error) or type(error).__name__, most=120)
        raise EncoderError(
            f"weights: {len(weights)} bytes that are not a safetensors file ({why}); convert them first"
        ) from error


def _shown(text: str, *, most: int = 60) -> str:
    """Text from a stranger's file: one line, printable, and not long."""
    cut = text if len(text) <= most else f"{text[:most]}…"
    return cut if cut.isprintable() else ascii(cut)


def _fast_precision(device: str) -> torch.dtype:
    if device.startswith("cpu"):
        return torch.float32
    if not torch.cuda.is_available():
        raise EncoderError(f"device {device}: torch sees no GPU here; use the processor, or a torch built for this GPU")
    return torch.float16
