"""Small ONNX files written byte by byte, so that tests need no ONNX exporter."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.card import BoxMargin, EncoderCard, InputSpec

Size = int | str
FLOAT, INT64, FLOAT16 = 1, 7, 10


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _value(name: str, shape: Sequence[Size], kind: int) -> bytes:
    dims = b"".join(_message(1, _number(1, s) if isinstance(s, int) else _message(2, s)) for s in shape)
    return _message(1, name) + _message(2, _message(1, _number(1, kind) + _message(2, dims)))


def _node(op: str, inputs: Sequence[str], output: str) -> bytes:
    return b"".join(_message(1, name) for name in inputs) + _message(2, output) + _message(4, op)


def onnx_file(
    shape: Sequence[Size],
    weights: NDArray[np.floating],
    *,
    inputs: int = 1,
    outputs: int = 1,
    kind: int = FLOAT,
    batch_out: Size | None = None,
) -> bytes:
    """An ONNX file that multiplies the flattened sum of its inputs by `weights`, (C * H * W, D)."""
    names = [f"face{index}" for index in range(inputs)]
    nodes = [_node("Sum", names, "sum"), _node("Flatten", ["sum"], "flat")]
    nodes += [_node("MatMul", ["flat", "weights"], f"embedding{index}") for index in range(outputs)]
    tensor = b"".join(_number(1, size) for size in weights.shape) + _number(2, kind) + _message(8, "weights")
    graph = b"".join(_message(1, node) for node in nodes) + _message(2, "tiny")
    graph += _message(5, tensor + _message(9, weights.tobytes()))
    graph += b"".join(_message(11, _value(name, shape, kind)) for name in names)
    out_shape = (shape[0] if batch_out is None else batch_out, weights.shape[1])
    graph += b"".join(_message(12, _value(f"embedding{index}", out_shape, kind)) for index in range(outputs))
    return _number(1, 8) + _message(7, graph) + _message(8, _number(2, 13))


@pytest.fixture(scope="session")
def make_onnx() -> Callable[..., bytes]:
    return onnx_file


@pytest.fixture
def tiny_card() -> EncoderCard:
    """An encoder of 16 x 16 faces and 4 dimensions whose preprocessing changes nothing."""
    spec = InputSpec(height=16, width=16, colour="rgb", scale=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    return EncoderCard(
        format=1, input=spec, geometry=BoxMargin(box_margin=0.2), mirror_average=False, dimension=4, architecture="onnx"
    )


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Small networks are faster so, whatever else the machine does, and their results do not depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
