"""Classification by person with a margin on the cosine: a baseline, and a head that is thrown away after training.

N faces, D dimensions of an embedding, P people.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MarginSoftmax"]


class MarginSoftmax(nn.Module):
    """Softmax over the cosines between a face and one learnt direction a person, the right one made harder by a margin.

    With cosines c, a face of person y costs the cross-entropy of scale * (c - margin * onehot(y)) against y.

    Args:
        dimension: of an embedding.
        people: how many are told apart.
        margin: taken off the right person's cosine, in [0, 1); 0 is a plain normalised softmax.
        scale: of the cosines, above 0: without it the softmax could never be sure.
        seed: of the first directions.

    Raises:
        ValueError: an argument out of range; the message names it.

    References:
        Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu. CosFace: Large Margin Cosine Loss for Deep Face Recognition. CVPR 2018.
        arXiv:1801.09414, equation 4.
    """

    def __init__(
        self, dimension: int, people: int, *, margin: float = 0.35, scale: float = 30.0, seed: int = 0
    ) -> None:
        super().__init__()
        if people < 2:
            raise ValueError(f"people: got {people}, wanted at least 2 to tell apart")
        if not 0 <= margin < 1:
            raise ValueError(f"class margin: got {margin}, wanted a cosine in [0, 1)")
        if not 0 < scale < float("inf"):
            raise ValueError(f"class scale: got {scale}, wanted a finite value above 0")
        self.margin, self.scale = margin, scale
        first = torch.randn(people, dimension, generator=torch.Generator().manual_seed(seed))
        self.directions = nn.Parameter(functional.normalize(first, dim=1))

    def forward(self, emb_ND: Tensor, labels_N: Tensor) -> Tensor:
        """The mean cost of the faces.

        Args:
            emb_ND: floating, (N, D), rows of length 1.
            labels_N: int64, (N,), the person of each face, in [0, P).

        Returns:
            A scalar, >= 0.

        Raises:
            ValueError: shapes that do not agree; the message names them.
        """
        people, dimension = self.directions.shape
        if emb_ND.ndim != 2 or emb_ND.shape[1] != dimension or labels_N.shape != emb_ND.shape[:1]:
            raise ValueError(
                f"faces: got embeddings {tuple(emb_ND.shape)} and labels {tuple(labels_N.shape)}, "
                f"wanted (N, {dimension}) and (N,) with N faces of {people} people"
            )
        cosines_NP = emb_ND @ functional.normalize(self.directions, dim=1).T
        right_NP = functional.one_hot(labels_N, people).to(cosines_NP.dtype)
        return functional.cross_entropy(self.scale * (cosines_NP - self.margin * right_NP), labels_N)
