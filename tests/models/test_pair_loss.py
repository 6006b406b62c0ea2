import math

import pytest
import torch
from torch import Tensor

from models.pair_loss import PairLoss

GENERATOR = torch.Generator().manual_seed(0)
EMB = torch.nn.functional.normalize(torch.randn(8, 5, generator=GENERATOR), dim=1)
CROPS = torch.rand(8, 3, 4, 4, generator=GENERATOR)
REBUILT = torch.rand(8, 3, 4, 4, generator=GENERATOR)
SAME = torch.tensor([True, False, True, False])


def mse(a: Tensor, b: Tensor) -> float:
    return sum((x - y) ** 2 for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)) / a.numel()


@pytest.mark.parametrize("rebuild_weight", [0.0, 0.1, 3.0])
def test_a_pair_costs_its_distance_and_the_rebuilding_of_both_crops(rebuild_weight: float) -> None:
    terms = PairLoss(margin=1.6, rebuild_weight=rebuild_weight)(
        (EMB[:4], EMB[4:]), SAME, rebuilt_2NCHW=(REBUILT[:4], REBUILT[4:]), crops_2NCHW=(CROPS[:4], CROPS[4:])
    )
    total = 0.0
    for i in range(4):
        d = math.dist(EMB[i].tolist(), EMB[4 + i].tolist())
        total += d**2 / 2 if SAME[i] else max(0.0, 1.6 - d) ** 2 / 2
        total += rebuild_weight * (mse(REBUILT[i], CROPS[i]) + mse(REBUILT[4 + i], CROPS[4 + i]))
    assert float(terms.total) == pytest.approx(total / 4, rel=1e-5)
    assert float(terms.total) == pytest.approx(float(terms.contrastive + rebuild_weight * terms.reconstruction))


def test_all_pairs_of_a_batch_cost_what_its_balanced_pairs_do() -> None:
    labels = torch.tensor([0, 1, 0, 1])
    alike, unlike = [(0, 2), (1, 3)], [(0, 1), (0, 3), (1, 2), (2, 3)]
    left, right = torch.tensor(alike * 2 + unlike).T
    loss = PairLoss(margin=1.6, rebuild_weight=0.5)
    pairs = loss(
        (EMB[left], EMB[right]),
        torch.arange(8) < 4,
        rebuilt_2NCHW=(REBUILT[left], REBUILT[right]),
        crops_2NCHW=(CROPS[left], CROPS[right]),
    )
    batch = loss.all_pairs(EMB[:4], labels, rebuilt_NCHW=REBUILT[:4], crops_NCHW=CROPS[:4])
    torch.testing.assert_close(batch, pairs)


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_weights_of_rebuilding_out_of_range_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"rebuild_weight: got {weight}"):
        PairLoss(margin=1.0, rebuild_weight=weight)


def test_margins_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="margin: got 2.5"):
        PairLoss(margin=2.5, rebuild_weight=0)
