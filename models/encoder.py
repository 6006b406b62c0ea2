"""The one contract of every encoder: uint8 faces in, unit vectors out.

N faces, H rows, W columns, D dimensions of an embedding.
"""

import hashlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.card import EncoderCard
from models.encoder_error import EncoderError
from models.preprocess import check_faces, preprocess_faces

__all__ = ["Encoder", "EncoderError", "load_encoder", "unit_rows"]

Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Bytes, uint8 (N, H, W, 3) as the card says, to embeddings, float32 (N, D), of any length."""

CHUNK_FACES, CHUNK_FACES_GPU = 64, 2048


class Encoder(Protocol):
    """Turns faces, cut as its card's geometry says, into embeddings."""

    @property
    def card(self) -> EncoderCard:
        """What the encoder is."""

    def embed(self, inputs_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The faces' embeddings, in their order.

        Args:
            inputs_NHWC: uint8, (N, H, W, 3), RGB, at the card's height and width; N may be 0.

        Returns:
            float32, (N, D), rows of length 1.

        Raises:
            EncoderError: another dtype or shape, or an embedding that is not finite or is zero; the message names it.
        """


def load_encoder(
    card: EncoderCard, weights: bytes, *, device: str = "cpu", threads: int = 1, full_precision: bool = False
) -> Encoder:
    """The encoder that a card and its weights describe.

    Args:
        card: its architecture is "onnx" or one of `models.architectures`.
        weights: an ONNX file's bytes for "onnx", a safetensors file's for the others.
        device: "cpu", where the project's own networks run on OpenVINO, see `processor_network`; or "cuda", where they run in
            torch in half precision.
        threads: threads within one operation, on the processor.
        full_precision: everything in float32 on the processor.

    Raises:
        EncoderError: the weights are not those the card names, do not fit it, its architecture is unknown, or there is no
            such device.
    """
    if card.sha256 is not None and (got := hashlib.sha256(weights).hexdigest()) != card.sha256:
        raise EncoderError(
            f"weights of {card.name or card.architecture}: got sha256 {got}, wanted {card.sha256} after the card; "
            "the file is damaged or another one: fetch it again"
        )
    network, chunk = _network(card, weights, device=device, threads=threads, full_precision=full_precision)
    return _CardEncoder(card, network, chunk=chunk)


def unit_rows(vectors_ND: NDArray[np.float32], *, first: int = 0) -> NDArray[np.float32]:
    """The rows, each divided by its length.

    Args:
        vectors_ND: float32, (N, D).
        first: the number of the first row in the whole batch, for the message.

    Raises:
        EncoderError: a row is not finite, or zero; the message names the row.
    """
    vectors_ND = vectors_ND.astype(np.float64)
    lengths_N = np.linalg.norm(vectors_ND, axis=1)
    if (bad := np.flatnonzero(~np.isfinite(lengths_N) | (lengths_N < 1e-12))).size:
        what = "zero" if np.isfinite(lengths_N[bad[0]]) else "not finite"
        raise EncoderError(
            f"embedding {first + bad[0]}: got a vector that is {what}, wanted one with a direction; "
            "check the weights and the card's scale, mean and std"
        )
    unit: NDArray[np.float32] = (vectors_ND / lengths_N[:, None]).astype(np.float32)
    return unit


def _network(
    card: EncoderCard, weights: bytes, *, device: str, threads: int, full_precision: bool
) -> tuple[Network, int]:
    """The network, and how many faces it is given at most."""
    if card.architecture == "onnx":  # torch, slow to import, is not needed
        from models.onnx_encoder import OnnxNetwork  # noqa: PLC0415

        on_onnx = OnnxNetwork(weights, card, device=device, threads=threads)
        return lambda faces_NHWC: on_onnx(preprocess_faces(faces_NHWC, card.input)), CHUNK_FACES
    return _own_network(card, weights, device=device, threads=threads, full_precision=full_precision)


def _own_network(
    card: EncoderCard, weights: bytes, *, device: str, threads: int, full_precision: bool
) -> tuple[Network, int]:
    """One of this project's networks, on OpenVINO or in torch, and how many faces it is given at most."""
    import torch  # noqa: PLC0415

    from models.architectures import ARCHITECTURES, is_network  # noqa: PLC0415
    from models.torch_encoder import TorchNetwork, read_network  # noqa: PLC0415

    if not is_network(card.architecture):
        raise EncoderError(
            f"card: got architecture {card.architecture or 'none'}, wanted onnx, {ARCHITECTURES}; correct the card"
        )
    spec = card.input
    network = read_network(weights, card)
    if device != "cpu":
        from models.cuda_network import CudaNetwork  # noqa: PLC0415

        return CudaNetwork(network, spec, device=device), CHUNK_FACES_GPU
    try:
        from models.processor_network import processor_network  # noqa: PLC0415
    except ImportError:  # there is no OpenVINO for every processor and every Python
        on_torch = TorchNetwork(network, threads=threads)
        return lambda faces_NHWC: on_torch(torch.from_numpy(preprocess_faces(faces_NHWC, spec))), CHUNK_FACES
    on_openvino = processor_network(network, spec, threads=threads, full_precision=full_precision)
    return lambda faces_NHWC: on_openvino(preprocess_faces(faces_NHWC, spec)), CHUNK_FACES


class _CardEncoder:
    """A network between its card's preprocessing and unit length.

    `mirror_average` adds the unit vectors of the face and of its mirror image, so that neither weighs more; with
    MobileFaceNet on LFW this tells people apart exactly as well as adding the raw outputs.
    """

    def __init__(self, card: EncoderCard, network: Network, *, chunk: int) -> None:
        self._card, self._network, self._chunk = card, network, chunk

    @property
    def card(self) -> EncoderCard:
        return self._card

    def embed(self, inputs_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        check_faces(inputs_NHWC, self._card.input)
        parts = [
            self._embed_chunk(inputs_NHWC[start : start + self._chunk], first=start)
            for start in range(0, len(inputs_NHWC), self._chunk)
        ]
        return np.concatenate([np.empty((0, self._card.dimension), np.float32), *parts])

    def _embed_chunk(self, faces_NHWC: NDArray[np.uint8], *, first: int) -> NDArray[np.float32]:
        upright_ND = self._unit(faces_NHWC, first=first)
        if not self._card.mirror_average:
            return upright_ND
        mirrored_ND = self._unit(faces_NHWC[:, :, ::-1], first=first)
        return unit_rows(upright_ND + mirrored_ND, first=first)

    def _unit(self, faces_NHWC: NDArray[np.uint8], *, first: int) -> NDArray[np.float32]:
        return unit_rows(self._network(faces_NHWC), first=first)
