"""A network of this project on a GPU: bytes in, embeddings out, at the price of one launch a batch.

Inception-ResNet V1 is some hundred small steps; started one by one from Python, they keep a fast GPU waiting. So the whole way
from bytes to embeddings is recorded once for each of a few batch sizes (a CUDA graph) and replayed. Faces are laid into pinned
memory piece by piece, by a few threads, and a piece is sent while the next ones are laid; while a batch is computed, the next
one is sent.

N faces, H rows, W columns, D dimensions of an embedding.

References:
    Gray. Getting Started with CUDA Graphs. 2019; torch.cuda.graphs.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.card import InputSpec
from models.preprocess_tensors import normalise_pixels
from models.torch_encoder import TorchNetwork

__all__ = ["BATCH_SIZES", "CudaNetwork", "cut_into_batches"]

BATCH_SIZES = (1, 8, 32, 64, 128, 256)
"""For which the way is recorded; a batch between two of them is filled up."""

_WARM_UPS = 3
_WAITING = 2
_PIECE = 32  # faces
_LAYING_THREADS = 4


@dataclass(frozen=True, eq=False)
class _Recorded:
    """The way of one batch size: where bytes are laid, where embeddings are found, and what to replay."""

    graph: torch.cuda.CUDAGraph
    bytes_NHWC: Tensor
    embeddings_ND: Tensor


class CudaNetwork:
    """Faces to embeddings, not yet of length 1; may be called from several threads, one at a time gets the GPU.

    Args:
        network: in evaluation mode; it is taken over.
        spec: its input.
        device: "cuda" or "cuda:1".

    Raises:
        EncoderError: there is no such GPU.
    """

    def __init__(self, network: nn.Module, spec: InputSpec, *, device: str) -> None:
        self._network, self._spec, self._device = TorchNetwork(network, device=device), spec, torch.device(device)
        self._recorded: dict[int, _Recorded] = {}
        self._sent = [torch.cuda.Event() for _ in range(_WAITING)]  # type: ignore[no-untyped-call]
        self._pinned = [self._pin() for _ in range(_WAITING)]
        self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._laying = ThreadPoolExecutor(min(_LAYING_THREADS, os.cpu_count() or 1), thread_name_prefix="lay-faces")
        self._lock = threading.Lock()

    def __call__(self, faces_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings, float32 (N, D), of uint8 faces, (N, H, W, 3), RGB, at the input's size; N may not be 0."""
        with self._lock, torch.cuda.device(self._device), torch.inference_mode():
            found = self._embed(faces_NHWC)
            if not self._network.exact and not np.isfinite(found).all():  # float16 lacks range, not precision
                self._network.compute_exactly()
                self._recorded.clear()
                found = self._embed(faces_NHWC)
        return found

    def _embed(self, faces_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        found, first = [], 0
        for number, (count, size) in enumerate(cut_into_batches(len(faces_NHWC))):
            bytes_NHWC = self._send(faces_NHWC[first : first + count], number % _WAITING)
            found.append(self._replay(bytes_NHWC, size)[:count])
            first += count
        embeddings: NDArray[np.float32] = torch.cat(found).cpu().numpy()
        return embeddings

    def _send(self, faces_NHWC: NDArray[np.uint8], slot: int) -> Tensor:
        """Faces on their way to the device; the computing waits for them, nobody else does."""
        self._sent[slot].synchronize()
        pinned_NHWC = self._pinned[slot][: len(faces_NHWC)]
        laid_NHWC = pinned_NHWC.numpy()
        pieces = [slice(start, start + _PIECE) for start in range(0, len(faces_NHWC), _PIECE)]
        with torch.cuda.stream(self._copies):
            bytes_NHWC = torch.empty(pinned_NHWC.shape, dtype=torch.uint8, device=self._device)
            laying = self._laying.map(lambda piece: np.copyto(laid_NHWC[piece], faces_NHWC[piece]), pieces)
            for piece, _ in zip(pieces, laying, strict=True):
                bytes_NHWC[piece].copy_(pinned_NHWC[piece], non_blocking=True)
            self._sent[slot].record()
        computing = torch.cuda.current_stream()
        computing.wait_event(self._sent[slot])
        bytes_NHWC.record_stream(computing)
        return bytes_NHWC

    def _replay(self, bytes_NHWC: Tensor, size: int) -> Tensor:
        if size not in self._recorded:
            self._recorded[size] = self._record(size)
        way = self._recorded[size]
        way.bytes_NHWC[: len(bytes_NHWC)].copy_(bytes_NHWC)
        way.graph.replay()
        return way.embeddings_ND.clone()

    def _record(self, size: int) -> _Recorded:
        height, width = self._spec.height, self._spec.width
        bytes_NHWC = torch.zeros((size, height, width, 3), dtype=torch.uint8, device=self._device)
        aside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # cuDNN chooses its ways before the recording
            for _ in range(_WARM_UPS):
                self._compute(bytes_NHWC)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            embeddings_ND = self._compute(bytes_NHWC)
        return _Recorded(graph, bytes_NHWC, embeddings_ND)

    def _compute(self, bytes_NHWC: Tensor) -> Tensor:
        return self._network.on_device(normalise_pixels(bytes_NHWC.permute(0, 3, 1, 2).float(), self._spec))

    def _pin(self) -> Tensor:
        shape = (BATCH_SIZES[-1], self._spec.height, self._spec.width, 3)
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)


def cut_into_batches(count: int) -> list[tuple[int, int]]:
    """How `count` faces are computed: for each batch its faces, and the recorded size that they are filled up to."""
    largest = BATCH_SIZES[-1]
    batches = [(largest, largest)] * (count // largest)
    if rest := count % largest:
        batches.append((rest, next(size for size in BATCH_SIZES if size >= rest)))
    return batches
