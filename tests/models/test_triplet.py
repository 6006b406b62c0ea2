import re

import pytest
import torch
from torch import Tensor

from models.triplet import TripletLoss


def faces(seed: int, count: int = 24, people: int = 6, dimension: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    emb = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, people, (count,), generator=generator)
    return torch.nn.functional.normalize(emb, dim=1), labels


def by_loops(emb: Tensor, labels: Tensor, margin: float) -> float:
    """The paper's rule, one triplet after another."""
    costs = []
    for a in range(len(emb)):
        for p in range(len(emb)):
            if a == p or labels[a] != labels[p]:
                continue
            positive = float((emb[a] - emb[p]).square().sum())
            others = [float((emb[a] - emb[n]).square().sum()) for n in range(len(emb)) if labels[n] != labels[a]]
            if not others:
                continue
            semi_hard = [n for n in others if n > positive]
            negative = min(semi_hard) if semi_hard else max(others)
            costs.append(max(0.0, positive - negative + margin))
    return sum(costs) / len(costs) if costs else 0.0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("margin", [0.05, 0.2, 1.5])
def test_the_loss_is_the_papers_triplet_by_triplet(seed: int, margin: float) -> None:
    emb, labels = faces(seed)
    assert TripletLoss(margin)(emb, labels).item() == pytest.approx(by_loops(emb, labels, margin), rel=1e-9)
    assert by_loops(emb, labels, margin) > 0


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0]], ids=["nobody twice", "one person"])
def test_a_batch_without_triplets_costs_nothing_and_moves_nothing(labels: list[int]) -> None:
    emb, _ = faces(0, count=4)
    emb.requires_grad_()
    loss = TripletLoss()(emb, torch.tensor(labels))
    loss.backward()
    assert loss.item() == 0
    assert emb.grad is not None
    assert not emb.grad.any()


def test_well_separated_people_cost_nothing() -> None:
    emb = torch.eye(3, dtype=torch.float64).repeat_interleave(2, dim=0)
    assert TripletLoss(0.5)(emb, torch.tensor([0, 0, 1, 1, 2, 2])).item() == 0


def test_the_gradient_agrees_with_finite_differences() -> None:
    emb, labels = faces(3, count=10, people=3)
    assert torch.autograd.gradcheck(lambda e: TripletLoss(0.3)(e, labels), (emb.requires_grad_(),), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("margin", [0.0, -1.0, 4.0, float("nan")])
def test_a_margin_that_means_nothing_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=rf"triplet margin: got {re.escape(str(margin))}, wanted .* \(0, 4\)"):
        TripletLoss(margin)


def test_labels_of_another_length_are_refused() -> None:
    emb, labels = faces(0)
    with pytest.raises(ValueError, match=r"got embeddings \(24, 5\) and labels \(23,\)"):
        TripletLoss()(emb, labels[1:])
