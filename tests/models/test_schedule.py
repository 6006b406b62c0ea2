import math

import pytest
import torch
from torch import nn

from models.schedule import parameter_groups, rise_and_fall


@pytest.mark.parametrize(
    ("progress", "wanted"),
    [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.6, 0.5), (0.4, 0.5 + 0.5 * math.cos(math.pi / 4)), (1.0, 0.0)],
)
def test_the_rate_rises_in_a_line_and_falls_as_a_half_cosine(progress: float, wanted: float) -> None:
    assert rise_and_fall(progress, warm_up=0.2) == pytest.approx(wanted, abs=1e-12)


def test_without_warm_up_it_starts_at_the_top() -> None:
    assert rise_and_fall(0, warm_up=0) == 1


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.last_linear = nn.Linear(4, 2, bias=False)
        self.last_bn = nn.BatchNorm1d(2)


def test_pretrained_layers_learn_slowly_new_ones_at_the_full_rate_and_norms_do_not_decay() -> None:
    network, decoder = Network(), nn.Linear(2, 5)
    groups = parameter_groups(network, [decoder], weight_decay=0.1, backbone_rate=0.2)
    told = {id(p): (group["rate"], group["weight_decay"]) for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    assert told[id(network.stem.weight)] == (0.2, 0.1)
    assert told[id(network.stem.bias)] == (0.2, 0.0)
    assert told[id(network.bn.weight)] == (0.2, 0.0)
    assert told[id(network.last_linear.weight)] == (1.0, 0.1)
    assert told[id(network.last_bn.weight)] == (1.0, 0.0)
    assert told[id(decoder.weight)] == (1.0, 0.1)
    assert told[id(decoder.bias)] == (1.0, 0.0)
    assert len(told) == len([*network.parameters(), *decoder.parameters()])


def test_at_one_rate_there_are_two_groups_with_every_parameter_once() -> None:
    network = Network()
    groups = parameter_groups(network, [], weight_decay=0.1, backbone_rate=1)
    parameters = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    assert len(groups) == 2
    assert {id(p) for p in parameters} == {id(p) for p in network.parameters()}
    torch.optim.AdamW(groups, lr=0.1)
