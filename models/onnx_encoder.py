"""A network in an ONNX file, through ONNX Runtime.

N faces, H rows, W columns, D dimensions of an embedding, B the file's own fixed batch.
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # its import would give the machine an id and report to its makers

import onnxruntime

from models.card import EncoderCard
from models.encoder_error import EncoderError

__all__ = ["OnnxNetwork"]

FloatType = type[np.float32] | type[np.float16]
FLOATS: dict[str, FloatType] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxNetwork:
    """Preprocessed faces to raw embeddings, by the one input and the one output of an ONNX file.

    Both kinds of file work: batch left open, and batch fixed at B; short batches are then filled up with zeros, which
    are thrown away again.

    Args:
        model: the file's bytes; weights kept in a second file are not supported.
        card: its input and dimension must agree with the file.
        device: "cuda" runs on the GPU if this ONNX Runtime can, everything else on the processor.
        threads: threads within one operation.

    Raises:
        EncoderError: the file is not ONNX, or its input or output does not agree with the card; the message names both.
    """

    def __init__(self, model: bytes, card: EncoderCard, *, device: str = "cpu", threads: int = 1) -> None:
        self._session = _session(model, device=device, threads=threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise EncoderError(
                f"ONNX file: got {_names(inputs)} in and {_names(outputs)} out, wanted one of each; "
                "export the network from the face to the embedding and nothing else"
            )
        self._dimension = card.dimension
        self._name = inputs[0].name
        self._dtype = _input_dtype(inputs[0])
        self._batch = _fixed_batch(inputs[0], card)
        self(np.zeros((1, 3, card.input.height, card.input.width), np.float32))

    def __call__(self, inputs_NCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw embeddings, float32 (N, D), of preprocessed faces, float32 (N, 3, H, W).

        Raises:
            EncoderError: the file fails on them or gives another shape than the card's dimension; the message names it.
        """
        inputs_NCHW = inputs_NCHW.astype(self._dtype, copy=False)
        step = self._batch or max(1, len(inputs_NCHW))
        parts = [self._run(inputs_NCHW[start : start + step]) for start in range(0, len(inputs_NCHW), step)]
        return np.concatenate([np.empty((0, self._dimension), np.float32), *parts])

    def _run(self, inputs_NCHW: NDArray[Any]) -> NDArray[np.float32]:
        count = len(inputs_NCHW)
        missing = (self._batch or count) - count
        if missing:
            inputs_NCHW = np.pad(inputs_NCHW, ((0, missing), (0, 0), (0, 0), (0, 0)))
        try:
            output = np.asarray(self._session.run(None, {self._name: inputs_NCHW})[0])
        except Exception as error:  # ONNX Runtime's exceptions have no common class
            raise EncoderError(f"ONNX file: failed on an input of {inputs_NCHW.shape}: {_first_line(error)}") from error
        if output.shape[:2] != (count + missing, self._dimension) or output.size != len(inputs_NCHW) * self._dimension:
            raise EncoderError(
                f"ONNX file: got an output of {output.shape} for {len(inputs_NCHW)} faces, wanted "
                f"({len(inputs_NCHW)}, {self._dimension}); put the file's own dimension into the card"
            )
        return output.reshape(-1, self._dimension)[:count].astype(np.float32)


def _session(model: bytes, *, device: str, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    wanted = ["CUDAExecutionProvider"] * device.startswith("cuda") + ["CPUExecutionProvider"]
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        raise EncoderError(f"ONNX file: {len(model)} bytes that cannot be loaded: {_first_line(error)}") from error


def _input_dtype(declared: Any) -> FloatType:
    if declared.type not in FLOATS:
        raise EncoderError(
            f"ONNX file: input {declared.name} is {declared.type}, wanted {' or '.join(FLOATS)}; "
            "export the network without its own preprocessing"
        )
    return FLOATS[declared.type]


def _fixed_batch(declared: Any, card: EncoderCard) -> int | None:
    """The batch that the file insists on, None if it takes any; sizes the file leaves open agree with every card."""
    wanted = (3, card.input.height, card.input.width)
    got = declared.shape
    agrees = len(got) == 4 and all(
        not isinstance(size, int) or size == want for size, want in zip(got[1:], wanted, strict=True)
    )
    if not agrees:
        raise EncoderError(
            f"ONNX file: input {declared.name} is {got}, wanted (N, 3, {card.input.height}, {card.input.width}) "
            "after the card; correct the card's height and width, or export with channels first"
        )
    return got[0] if isinstance(got[0], int) and got[0] > 0 else None


def _names(declared: list[Any]) -> str:
    return f"{len(declared)} ({', '.join(one.name for one in declared)})"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
