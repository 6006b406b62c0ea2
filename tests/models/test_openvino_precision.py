import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops
from torch import nn
from torch.nn import functional

import models.openvino_precision
from models.openvino_network import OpenVinoNetwork
from models.openvino_precision import bfloat16_convolutions, compile_network, multiplies_bfloat16

needs_bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor does not multiply bfloat16")

GENERATOR = torch.Generator().manual_seed(0)
PIXELS = torch.randn(2, 3, 12, 12, generator=GENERATOR)
CHANNELS = ((3, 16), (16, 16), (16, 16), (16, 16))
WEIGHTS = [0.2 * torch.randn(after, before, 3, 3, generator=GENERATOR) for before, after in CHANNELS]
BIASES = [torch.randn(after, generator=GENERATOR) for _, after in CHANNELS]


class Row(nn.Module):
    """Four convolutions, each with a ReLU, and a sum around the two in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in CHANNELS)
        for conv, weight, bias in zip(self.convs, WEIGHTS, BIASES, strict=True):
            conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        x_NCHW = functional.relu(self.convs[0](x_NCHW))
        y_NCHW = functional.relu(self.convs[1](x_NCHW))
        x_NCHW = functional.relu(x_NCHW + 0.5 * self.convs[2](y_NCHW))
        return functional.relu(self.convs[3](x_NCHW))


def row_by_hand(low: set[int]) -> np.ndarray:
    """What `Row` gives of PIXELS if the convolutions of those numbers round their inputs and weights, to nearest.

    OpenVINO also rounds the bias of a convolution between two of them, which is what 1 is if 2 is chosen.
    """

    def conv(x: torch.Tensor, number: int, scale: float = 1.0) -> torch.Tensor:
        weight, bias = scale * WEIGHTS[number], scale * BIASES[number]
        if number in low:
            x, weight = x.bfloat16(), weight.bfloat16()
        if number == 1 and low >= {1, 2}:
            bias = bias.bfloat16()
        return functional.conv2d(x.double(), weight.double(), bias.double(), padding=1).float()

    x_NCHW = functional.relu(conv(PIXELS, 0))
    y_NCHW = functional.relu(conv(x_NCHW, 1))
    x_NCHW = functional.relu(x_NCHW + conv(y_NCHW, 2, 0.5))
    return functional.relu(conv(x_NCHW, 3)).numpy()


def row(layers: tuple[str, ...]) -> OpenVinoNetwork:
    return OpenVinoNetwork(Row().eval(), height=12, width=12, bfloat16_layers=layers)


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@needs_bfloat16
@pytest.mark.parametrize("low", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}])
def test_layers_that_were_chosen_are_rounded_to_nearest_and_no_others(low: set[int]) -> None:
    chosen = row(tuple(f"convs.{number}" for number in low))
    assert chosen.bfloat16_convolutions == len(low)
    found = chosen(PIXELS.numpy())
    assert distance(found, row_by_hand(low)) < 1e-5
    assert distance(found, row_by_hand(set())) > 1e-3
    for other in range(4):
        assert distance(found, row_by_hand(low ^ {other})) > 5e-4


def test_without_chosen_layers_all_is_float32() -> None:
    exact = row(())
    assert exact.bfloat16_convolutions == 0
    assert distance(exact(PIXELS.numpy()), row_by_hand(set())) < 1e-6


def test_a_processor_without_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.openvino_precision, "multiplies_bfloat16", lambda: False)
    exact = row(("convs.",))
    assert exact.bfloat16_convolutions == 0
    np.testing.assert_array_equal(exact(PIXELS.numpy()), row(())(PIXELS.numpy()))


@needs_bfloat16
@pytest.mark.parametrize("keeps_marks", [True, False])
def test_where_openvino_rounds_more_than_was_chosen_all_is_float32(keeps_marks: bool) -> None:
    """OpenVINO 2026.4 loses an unsqueeze's mark when it makes a reshape of it."""
    pixels = ops.parameter([-1, 3, 12, 12], np.float32)
    conv = ops.convolution(pixels, ops.constant(WEIGHTS[0].numpy()), [1, 1], [0, 0], [0, 0], [1, 1])
    conv.set_friendly_name("chosen")
    pooled = ops.reduce_mean(conv, ops.constant(np.array([2, 3])), False)
    last_axes = ops.constant(np.array([0, 0, 1, 1] if keeps_marks else [2, 3]))
    again = ops.reshape(pooled, last_axes, True) if keeps_marks else ops.unsqueeze(pooled, last_axes)
    weights = ops.constant(WEIGHTS[1].numpy()[:, :, :1, :1])
    last = ops.convolution(again, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    compiled = compile_network(openvino.Model([last], [pixels], "t"), threads=1, bfloat16_layers=("chosen",))
    assert bfloat16_convolutions(compiled) == int(keeps_marks)
