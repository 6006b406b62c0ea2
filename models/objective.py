"""What an encoder is trained for: one of the losses on embeddings, by name.

N faces, D dimensions of an embedding.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from models.contrastive import ContrastiveLoss
from models.margin_softmax import MarginSoftmax
from models.triplet import TripletLoss

__all__ = ["LossName", "Objective"]

LossName = Literal["contrastive", "triplet", "classification"]


class Objective(nn.Module):
    """A loss on a batch of embeddings and the people they show, with the weights that only training needs.

    Args:
        loss: "contrastive" (all pairs of the batch), "triplet" (semi-hard) or "classification" (softmax with a margin).
        margin: of the loss: a distance, a squared distance, a cosine.
        hardest_share: of the pairs of two people, for "contrastive".
        dimension: of an embedding, for "classification".
        people: told apart, for "classification".
        seed: of the first weights, for "classification".

    Raises:
        ValueError: the loss is unknown, or its margin is out of its range; the message says so.
    """

    def __init__(
        self, loss: LossName, *, margin: float, hardest_share: float, dimension: int, people: int, seed: int
    ) -> None:
        super().__init__()
        self.loss = loss
        self.hardest_share = hardest_share
        self.metric: nn.Module
        if loss == "contrastive":
            self.metric = ContrastiveLoss(margin)
        elif loss == "triplet":
            self.metric = TripletLoss(margin)
        elif loss == "classification":
            self.metric = MarginSoftmax(dimension, people, margin=margin, seed=seed)
        else:
            raise ValueError(f"loss: got {loss!r}, wanted one of {', '.join(get_args(LossName))}")

    def forward(self, emb_ND: Tensor, labels_N: Tensor) -> Tensor:
        """The loss, a scalar, of embeddings, floating (N, D) of length 1, and people, int64 (N,)."""
        if isinstance(self.metric, ContrastiveLoss):
            return self.metric.all_pairs(emb_ND, labels_N, hardest_share=self.hardest_share)
        cost: Tensor = self.metric(emb_ND, labels_N)
        return cost

    def take_gradient(self, emb_ND: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its gradient by the embeddings, (N, D); gradients of the loss's own weights are added to them."""
        leaf_ND = emb_ND.detach().requires_grad_()
        with torch.enable_grad():
            loss = self(leaf_ND, labels_N)
        wanted = [leaf_ND, *self.parameters()]
        gradient_ND, *own = torch.autograd.grad(loss, wanted)
        for weights, gradient in zip(self.parameters(), own, strict=True):
            weights.grad = gradient if weights.grad is None else weights.grad + gradient
        return loss.detach(), gradient_ND
