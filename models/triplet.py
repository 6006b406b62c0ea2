"""The triplet loss with semi-hard negatives, over all pairs of one person in a batch.

N faces, D dimensions of an embedding.
"""

import torch
from torch import Tensor, nn

__all__ = ["TripletLoss"]


class TripletLoss(nn.Module):
    """Wants a face nearer to its own person's other faces than to anybody else's, by `margin` in squared distance.

    With squared distances p between anchor and positive, and n between anchor and negative, a triplet costs
    max(0, p - n + margin). Every ordered pair of one person in the batch is an anchor with its positive; its negative is the
    nearest face of another person that is further away than the positive (semi-hard), or, where none is, the furthest of
    the others, which is the mildest mistake. Triplets that cost nothing count in the mean.

    Args:
        margin: in squared distance, in (0, 4): unit vectors are never further apart than 4.

    Raises:
        ValueError: margin out of range; the message names its value.

    References:
        Schroff, Kalenichenko, Philbin. FaceNet: A Unified Embedding for Face Recognition and Clustering. CVPR 2015.
        arXiv:1503.03832, sections 3.1 and 3.2.
    """

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        if not 0 < margin < 4:
            raise ValueError(f"triplet margin: got {margin}, wanted a squared distance in (0, 4)")
        self.margin = margin

    def forward(self, emb_ND: Tensor, labels_N: Tensor) -> Tensor:
        """The mean cost of the batch's triplets; zero where nobody has two faces or all faces are one person's.

        Args:
            emb_ND: floating, (N, D), rows of length 1.
            labels_N: integer, (N,), the person of each face.

        Returns:
            A scalar, >= 0.

        Raises:
            ValueError: shapes that do not agree; the message names them.
        """
        if emb_ND.ndim != 2 or labels_N.shape != emb_ND.shape[:1]:
            raise ValueError(
                f"faces: got embeddings {tuple(emb_ND.shape)} and labels {tuple(labels_N.shape)}, wanted (N, D) and (N,)"
            )
        squares_NN = (emb_ND[:, None] - emb_ND[None]).square().sum(dim=2)
        same_NN = labels_N[:, None] == labels_N[None]
        itself_NN = torch.eye(len(labels_N), dtype=torch.bool, device=emb_ND.device)
        anchors_T, positives_T = torch.nonzero(same_NN & ~itself_NN & (~same_NN).any(dim=1)[:, None], as_tuple=True)
        if not len(anchors_T):
            return emb_ND.sum() * 0
        positive_T = squares_NN[anchors_T, positives_T]
        others_TN = squares_NN[anchors_T].masked_fill(same_NN[anchors_T], torch.inf)
        nearest_T = others_TN.masked_fill(others_TN <= positive_T[:, None], torch.inf).min(dim=1).values
        furthest_T = others_TN.masked_fill(same_NN[anchors_T], -torch.inf).max(dim=1).values
        negative_T = torch.where(nearest_T.isinf(), furthest_T, nearest_T)
        return (positive_T - negative_T + self.margin).clamp(min=0).mean()
