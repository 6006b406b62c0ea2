"""The contrastive loss, on given pairs and on all pairs of a batch.

N faces or pairs, D dimensions of an embedding.
"""

import math

import torch
from torch import Tensor, nn

__all__ = ["ContrastiveLoss"]

SMALLEST_SQUARE = 1e-12


class ContrastiveLoss(nn.Module):
    """Pulls faces of one person together and pushes two people's faces at least `margin` apart.

    With d = ||a - b||, 0 <= d <= 2 on unit vectors, a pair costs d^2 / 2 for one person and max(0, margin - d)^2 / 2 for
    two. The gradient is finite everywhere; two people at one point, where no direction is right, are not moved.

    Args:
        margin: distance beyond which two people cost nothing, in (0, 2).

    Raises:
        ValueError: margin out of range; the message names its value.

    References:
        Hadsell, Chopra, LeCun. Dimensionality Reduction by Learning an Invariant Mapping. CVPR 2006. `all_pairs` is ours:
        the same cost's expectation over balanced pairs of a batch, in place of a sample of them; keeping the costliest
        follows Shrivastava, Gupta, Girshick. Training Region-based Object Detectors with Online Hard Example Mining.
        CVPR 2016. arXiv:1604.03540.
    """

    def __init__(self, margin: float) -> None:
        super().__init__()
        if not 0 < margin < 2:
            raise ValueError(
                f"margin: got {margin}, wanted a distance in (0, 2): unit vectors are never further apart than 2"
            )
        self.margin = margin

    def forward(self, left_ND: Tensor, right_ND: Tensor, same_N: Tensor) -> Tensor:
        """The mean cost of N pairs.

        Args:
            left_ND: floating, (N, D), rows of length 1.
            right_ND: the same, the other face of each pair.
            same_N: bool, (N,), whether a pair is one person.

        Returns:
            A scalar, >= 0.

        Raises:
            ValueError: shapes that do not agree; the message names them.
        """
        if left_ND.ndim != 2 or left_ND.shape != right_ND.shape or same_N.shape != left_ND.shape[:1]:
            raise ValueError(
                f"pairs: got left {tuple(left_ND.shape)}, right {tuple(right_ND.shape)} and same {tuple(same_N.shape)}, "
                "wanted (N, D), (N, D) and (N,)"
            )
        return self._costs((left_ND - right_ND).square().sum(dim=1), same_N).mean()

    def all_pairs(self, emb_ND: Tensor, labels_N: Tensor, *, hardest_share: float = 1.0) -> Tensor:
        """Half the mean cost of all pairs of one person in the batch plus half that of the pairs of two.

        A batch of n faces is n (n - 1) / 2 pairs for n forward passes. Most pairs of two people are soon far apart and teach
        nothing, so the mean can be taken over the costliest of them only. A kind of pair that the batch lacks costs nothing.

        Args:
            emb_ND: floating, (N, D), rows of length 1.
            labels_N: integer, (N,), the person of each face.
            hardest_share: share of the pairs of two people that counts, the costliest, in (0, 1].

        Returns:
            A scalar, >= 0.

        Raises:
            ValueError: shapes that do not agree or a share out of range; the message names them.
        """
        if emb_ND.ndim != 2 or labels_N.shape != emb_ND.shape[:1]:
            raise ValueError(
                f"faces: got embeddings {tuple(emb_ND.shape)} and labels {tuple(labels_N.shape)}, wanted (N, D) and (N,)"
            )
        if not 0 < hardest_share <= 1:
            raise ValueError(f"hardest_share: got {hardest_share}, wanted a share in (0, 1]")
        same_NN = labels_N[:, None] == labels_N[None]
        costs_NN = self._costs((emb_ND[:, None] - emb_ND[None]).square().sum(dim=2), same_NN)
        once_NN = torch.ones_like(same_NN).triu(diagonal=1)
        alike, unlike = costs_NN[same_NN & once_NN], costs_NN[~same_NN & once_NN]
        hardest = unlike.topk(math.ceil(hardest_share * len(unlike))).values
        return (alike.sum() / max(1, len(alike)) + hardest.sum() / max(1, len(hardest))) / 2

    def _costs(self, squares: Tensor, same: Tensor) -> Tensor:
        distances = squares.clamp(min=SMALLEST_SQUARE).sqrt()
        return torch.where(same, squares, (self.margin - distances).clamp(min=0).square()) / 2
