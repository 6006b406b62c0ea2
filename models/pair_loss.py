"""The loss that encoders are trained with: contrastive plus reconstruction.

N faces or pairs, D dimensions of an embedding, C channels, H rows, W columns.
"""

from typing import NamedTuple

from torch import Tensor, nn

from models.contrastive import ContrastiveLoss
from models.reconstruction import ReconstructionLoss

__all__ = ["PairLoss", "PairLossTerms"]


class PairLossTerms(NamedTuple):
    """The loss and what it is made of, scalars: total = contrastive + rebuild_weight * reconstruction."""

    total: Tensor
    contrastive: Tensor
    reconstruction: Tensor


class PairLoss(nn.Module):
    """Contrastive loss of a pair of faces plus the error of rebuilding both crops.

    With d = ||a - b||, 0 <= d <= 2 on unit vectors, a pair costs d^2 / 2 for one person and max(0, margin - d)^2 / 2 for
    two, plus rebuild_weight * (mse(a) + mse(b)); the result is the batch's mean. Rebuilding keeps the embedding from
    collapsing.

    Args:
        margin: distance beyond which two people cost nothing, in (0, 2): unit vectors are never further apart.
        rebuild_weight: weight of the decoder's term, >= 0.

    Raises:
        ValueError: margin or rebuild_weight out of range; the message names the argument and its value.

    References:
        Hadsell, Chopra, LeCun. Dimensionality Reduction by Learning an Invariant Mapping. CVPR 2006. The rebuilding term
        is the project's own.
    """

    def __init__(self, *, margin: float, rebuild_weight: float) -> None:
        super().__init__()
        if not 0 <= rebuild_weight < float("inf"):
            raise ValueError(f"rebuild_weight: got {rebuild_weight}, wanted a finite weight of at least 0")
        self.rebuild_weight = rebuild_weight
        self.contrastive = ContrastiveLoss(margin)
        self.reconstruction = ReconstructionLoss()

    def forward(
        self,
        embs_2ND: tuple[Tensor, Tensor],
        same_N: Tensor,
        *,
        rebuilt_2NCHW: tuple[Tensor, Tensor],
        crops_2NCHW: tuple[Tensor, Tensor],
    ) -> PairLossTerms:
        """The loss of N pairs.

        Args:
            embs_2ND: both sides' embeddings, each floating, (N, D), rows of length 1.
            same_N: bool, (N,), whether a pair is one person.
            rebuilt_2NCHW: both sides' crops as the decoder rebuilds them, each floating, (N, C, H, W).
            crops_2NCHW: both sides' crops, in the decoder's range.

        Raises:
            ValueError: shapes that do not agree; the message names them.
        """
        pairs = zip(rebuilt_2NCHW, crops_2NCHW, strict=True)
        left, right = (self.reconstruction(rebuilt, crops) for rebuilt, crops in pairs)
        return self._terms(self.contrastive(*embs_2ND, same_N), left + right)

    def all_pairs(
        self, emb_ND: Tensor, labels_N: Tensor, *, rebuilt_NCHW: Tensor, crops_NCHW: Tensor, hardest_share: float = 1.0
    ) -> PairLossTerms:
        """The same loss over all pairs of a batch, those of one person weighing as much as those of two.

        Args:
            emb_ND: floating, (N, D), rows of length 1.
            labels_N: integer, (N,), the person of each face.
            rebuilt_NCHW: the crops as the decoder rebuilds them, floating, (N, C, H, W).
            crops_NCHW: the crops, in the decoder's range.
            hardest_share: share of the pairs of two people that counts, the costliest, in (0, 1].

        Raises:
            ValueError: shapes that do not agree or a share out of range; the message names them.
        """
        contrastive = self.contrastive.all_pairs(emb_ND, labels_N, hardest_share=hardest_share)
        return self._terms(contrastive, 2 * self.reconstruction(rebuilt_NCHW, crops_NCHW))

    def _terms(self, contrastive: Tensor, reconstruction: Tensor) -> PairLossTerms:
        return PairLossTerms(contrastive + self.rebuild_weight * reconstruction, contrastive, reconstruction)
