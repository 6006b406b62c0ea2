import math

import pytest
import torch
from torch import Tensor

from models.contrastive import ContrastiveLoss


def unit(count: int, seed: int, dimension: int = 5) -> Tensor:
    vectors = torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1)


def cost(a: Tensor, b: Tensor, same: bool, margin: float) -> float:
    """One pair's cost as in the paper."""
    d = math.dist(a.tolist(), b.tolist())
    return d**2 / 2 if same else max(0.0, margin - d) ** 2 / 2


@pytest.mark.parametrize("margin", [0.5, 1.2, 1.9])
def test_pairs_cost_what_the_paper_says(margin: float) -> None:
    left, right = unit(20, 0), unit(20, 1)
    same = torch.arange(20) % 3 == 0
    wanted = sum(cost(left[i], right[i], bool(same[i]), margin) for i in range(20)) / 20
    assert float(ContrastiveLoss(margin)(left, right, same)) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("hardest_share", [1.0, 0.3, 0.01])
def test_all_pairs_weigh_one_person_and_the_hardest_of_two_alike(hardest_share: float) -> None:
    emb, labels = unit(13, 2), torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 4, 4, 4, 5, 6])
    costs: dict[bool, list[float]] = {True: [], False: []}
    for i in range(13):
        for j in range(i):
            same = bool(labels[i] == labels[j])
            costs[same].append(cost(emb[i], emb[j], same, 1.4))
    hardest = sorted(costs[False], reverse=True)[: max(1, math.ceil(hardest_share * len(costs[False])))]
    wanted = sum(costs[True]) / len(costs[True]) / 2 + sum(hardest) / len(hardest) / 2
    loss = ContrastiveLoss(1.4).all_pairs(emb, labels, hardest_share=hardest_share)
    assert float(loss) == pytest.approx(wanted, rel=1e-9)


def test_all_pairs_is_what_balanced_pairs_cost_in_the_mean() -> None:
    emb, labels = unit(6, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    alike = [(i, j) for i in range(6) for j in range(i) if labels[i] == labels[j]]
    unlike = [(i, j) for i in range(6) for j in range(i) if labels[i] != labels[j]]
    balanced = torch.tensor(alike * len(unlike) + unlike * len(alike))
    same = torch.arange(len(balanced)) < len(balanced) // 2
    pairs = ContrastiveLoss(1.0)(emb[balanced[:, 0]], emb[balanced[:, 1]], same)
    torch.testing.assert_close(ContrastiveLoss(1.0).all_pairs(emb, labels), pairs)


def test_a_kind_of_pair_that_a_batch_lacks_costs_nothing() -> None:
    emb, loss = unit(3, 4), ContrastiveLoss(1.9)
    alike = sum(cost(emb[i], emb[j], True, 1.9) for i in range(3) for j in range(i)) / 3
    assert float(loss.all_pairs(emb, torch.zeros(3, dtype=torch.int64))) == pytest.approx(alike / 2)
    unlike = sum(cost(emb[i], emb[j], False, 1.9) for i in range(3) for j in range(i)) / 3
    assert float(loss.all_pairs(emb, torch.arange(3))) == pytest.approx(unlike / 2)


@pytest.mark.parametrize("same", [True, False])
def test_gradients_are_finite_where_two_faces_coincide(same: bool) -> None:
    emb = unit(1, 5).repeat(2, 1).requires_grad_()
    loss = ContrastiveLoss(1.2)
    labels = torch.zeros(2, dtype=torch.int64) if same else torch.arange(2)
    (loss(emb[:1], emb[1:], torch.tensor([same])) + loss.all_pairs(emb, labels)).backward()
    assert emb.grad is not None
    assert torch.isfinite(emb.grad).all()


def test_gradients_pull_one_person_together_and_push_two_apart() -> None:
    for same, wanted in ((True, -1), (False, 1)):
        left, right = unit(1, 6).requires_grad_(), unit(1, 7)
        ContrastiveLoss(1.9)(left, right, torch.tensor([same])).backward()
        assert left.grad is not None
        stepped = (left - 1e-3 * left.grad - right).norm() - (left - right).norm()
        assert torch.sign(stepped) == wanted


def test_gradients_of_all_pairs_are_those_of_finite_differences() -> None:
    emb = unit(6, 8).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda e: ContrastiveLoss(1.3).all_pairs(e, labels, hardest_share=0.5), [emb])


@pytest.mark.parametrize("margin", [0.0, -1.0, 2.0, 10.0, math.nan])
def test_margins_that_unit_vectors_cannot_reach_are_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=rf"margin: got {margin}.*unit vectors are never further apart than 2"):
        ContrastiveLoss(margin)


def test_shapes_that_do_not_agree_are_refused() -> None:
    loss = ContrastiveLoss(1.0)
    with pytest.raises(ValueError, match=r"got left \(3, 5\), right \(2, 5\) and same \(3,\)"):
        loss(unit(3, 0), unit(2, 0), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got embeddings \(3, 5\) and labels \(2,\)"):
        loss.all_pairs(unit(3, 0), torch.zeros(2))


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_shares_of_the_hardest_pairs_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match=rf"hardest_share: got {share}"):
        ContrastiveLoss(1.0).all_pairs(unit(3, 0), torch.zeros(3), hardest_share=share)
