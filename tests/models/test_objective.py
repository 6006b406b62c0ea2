from typing import Any

import pytest
import torch
from torch import Tensor

from models.contrastive import ContrastiveLoss
from models.margin_softmax import MarginSoftmax
from models.objective import Objective
from models.triplet import TripletLoss

GENERATOR = torch.Generator().manual_seed(0)
EMB = torch.nn.functional.normalize(torch.randn(20, 6, generator=GENERATOR), dim=1)
LABELS = torch.arange(20) % 5


def objective(loss: Any, margin: float) -> Objective:
    return Objective(loss, margin=margin, hardest_share=0.5, dimension=6, people=5, seed=3)


def wanted(loss: str, emb: Tensor) -> Tensor:
    if loss == "contrastive":
        return ContrastiveLoss(1.2).all_pairs(emb, LABELS, hardest_share=0.5)
    head = TripletLoss(0.3) if loss == "triplet" else MarginSoftmax(6, 5, margin=0.2, seed=3)
    return head(emb, LABELS)


@pytest.mark.parametrize(("loss", "margin"), [("contrastive", 1.2), ("triplet", 0.3), ("classification", 0.2)])
def test_a_name_stands_for_its_loss_and_gradient(loss: str, margin: float) -> None:
    leaf = EMB.clone().requires_grad_()
    value = wanted(loss, leaf)
    value.backward()
    made = objective(loss, margin)
    got, gradient = made.take_gradient(EMB, LABELS)
    assert got.item() == made(EMB, LABELS).item() == pytest.approx(value.item())
    assert leaf.grad is not None
    torch.testing.assert_close(gradient, leaf.grad)
    assert not EMB.requires_grad


def test_only_classification_has_weights_of_its_own_and_they_get_their_gradient() -> None:
    assert not list(objective("contrastive", 1).parameters())
    assert not list(objective("triplet", 1).parameters())
    head = objective("classification", 0.2)
    head.take_gradient(EMB, LABELS)
    (directions,) = head.parameters()
    assert directions.grad is not None
    assert directions.grad.abs().sum() > 0


def test_a_gradient_is_taken_even_where_none_is_recorded() -> None:
    with torch.no_grad():
        assert objective("contrastive", 1).take_gradient(EMB, LABELS)[1].abs().sum() > 0


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(ValueError, match="loss: got 'arcface', wanted one of contrastive, triplet, classification"):
        objective("arcface", 1)
