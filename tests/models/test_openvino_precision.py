import numpy as np
import openvino
import pytest
import torch
from openvino import opset1
from openvino import opset13 as ops
from torch import nn
from torch.nn import functional

import models.openvino_precision
from models.batch_norm import recalibrate_batch_norm
from models.inception_resnet_v1 import InceptionResnetV1
from models.openvino_network import BATCH_FACES, OpenVinoNetwork
from models.openvino_precision import bfloat16_convolutions, compile_network, multiplies_bfloat16

needs_bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor does not multiply bfloat16")

GENERATOR = torch.Generator().manual_seed(0)
PIXELS = torch.randn(2, 3, 12, 12, generator=GENERATOR)
FACES = torch.randn(2 * BATCH_FACES + 1, 3, 96, 80, generator=GENERATOR)
CHANNELS = ((3, 16), (16, 16), (16, 16))
WEIGHTS = [0.2 * torch.randn(after, before, 3, 3, generator=GENERATOR) for before, after in CHANNELS]
BIASES = [torch.randn(after, generator=GENERATOR) for _, after in CHANNELS]


class Row(nn.Module):
    """Three convolutions, each with a ReLU, and a sum around the second."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in CHANNELS)
        for conv, weight, bias in zip(self.convs, WEIGHTS, BIASES, strict=True):
            conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        x_NCHW = functional.relu(self.convs[0](x_NCHW))
        x_NCHW = functional.relu(x_NCHW + 0.5 * self.convs[1](x_NCHW))
        return functional.relu(self.convs[2](x_NCHW))


def row_by_hand(low: set[int]) -> np.ndarray:
    """What `Row` gives of PIXELS if the convolutions of those numbers round their inputs and weights, to nearest."""

    def conv(x: torch.Tensor, number: int, scale: float = 1.0) -> torch.Tensor:
        weight = scale * WEIGHTS[number]
        if number in low:
            x, weight = x.bfloat16(), weight.bfloat16()
        return functional.conv2d(x.double(), weight.double(), scale * BIASES[number].double(), padding=1).float()

    x_NCHW = functional.relu(conv(PIXELS, 0))
    x_NCHW = functional.relu(x_NCHW + conv(x_NCHW, 1, 0.5))
    return functional.relu(conv(x_NCHW, 2)).numpy()


def row(layers: tuple[str, ...]) -> OpenVinoNetwork:
    return OpenVinoNetwork(Row().eval(), height=12, width=12, bfloat16_layers=layers)


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.fixture(scope="module")
def network() -> InceptionResnetV1:
    """The published size, alive through all layers."""
    network = InceptionResnetV1()
    network.initialise(0)
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, 0, 0.2)
    recalibrate_batch_norm(network, [FACES])
    return network.eval()


@pytest.fixture(scope="module")
def mixed(network: InceptionResnetV1) -> OpenVinoNetwork:
    return OpenVinoNetwork(network, height=96, width=80, bfloat16_layers=network.bfloat16_layers)


@needs_bfloat16
@pytest.mark.parametrize("low", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}])
def test_layers_that_were_chosen_are_rounded_to_nearest_and_no_others(low: set[int]) -> None:
    chosen = row(tuple(f"convs.{number}." for number in low) + tuple(f"convs.{number}_" for number in low))
    assert chosen.bfloat16_convolutions == len(low)
    found = chosen(PIXELS.numpy())
    assert distance(found, row_by_hand(low)) < 2e-4
    assert distance(found, row_by_hand(set())) > 1e-3
    for other in range(3):
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
@pytest.mark.parametrize("keeps_its_mark", [True, False])
def test_where_openvino_rounds_more_than_was_chosen_all_is_float32(keeps_its_mark: bool) -> None:
    """OpenVINO 2026.4 loses the mark of a newer max_pool on the way to its own."""
    pixels = ops.parameter([-1, 3, 12, 12], np.float32)
    conv = ops.convolution(pixels, ops.constant(WEIGHTS[0].numpy()), [1, 1], [0, 0], [0, 0], [1, 1])
    conv.set_friendly_name("chosen")
    sides = [1, 1], [0, 0], [0, 0], [3, 3], "floor"
    pooled = opset1.max_pool(conv, *sides) if keeps_its_mark else ops.max_pool(conv, sides[0], [1, 1], *sides[1:])
    compiled = compile_network(openvino.Model([pooled], [pixels], "t"), threads=1, bfloat16_layers=("chosen",))
    assert bfloat16_convolutions(compiled) == int(keeps_its_mark)


@torch.inference_mode()
def test_the_published_network_keeps_its_embeddings(network: InceptionResnetV1, mixed: OpenVinoNetwork) -> None:
    assert mixed.bfloat16_convolutions == (117 if multiplies_bfloat16() else 0)
    wanted_ND, found_ND = network(FACES).numpy(), mixed(FACES.numpy())
    assert (wanted_ND * found_ND).sum(axis=1, dtype=np.float64).min() > 0.9999
    assert np.abs(wanted_ND @ wanted_ND.T - np.eye(len(FACES))).max() < 0.9  # faces differ, or that said nothing


def test_company_and_loading_again_change_no_bit(network: InceptionResnetV1, mixed: OpenVinoNetwork) -> None:
    together_ND = mixed(FACES.numpy())
    np.testing.assert_array_equal(mixed(FACES.numpy()[::-1])[::-1], together_ND)
    for number in (0, BATCH_FACES, len(FACES) - 1):
        np.testing.assert_array_equal(mixed(FACES.numpy()[number : number + 1])[0], together_ND[number])
    again = OpenVinoNetwork(network, height=96, width=80, bfloat16_layers=network.bfloat16_layers)
    np.testing.assert_array_equal(again(FACES.numpy()), together_ND)


def test_a_narrow_network_stays_float32() -> None:
    assert InceptionResnetV1(0.5, 64).bfloat16_layers == ()
