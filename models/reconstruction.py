"""The reconstruction loss: what of a crop can be rebuilt from its embedding.

N crops, C channels, H rows, W columns.
"""

from torch import Tensor, nn

__all__ = ["ReconstructionLoss"]


class ReconstructionLoss(nn.Module):
    """Mean squared error of rebuilt crops, in squared units of the pixels.

    References:
        Hinton, Salakhutdinov. Reducing the Dimensionality of Data with Neural Networks. Science 313, 2006. Squared error in
        place of their cross-entropy.
    """

    def forward(self, rebuilt_NCHW: Tensor, crops_NCHW: Tensor) -> Tensor:
        """The mean over the batch of each crop's mean squared error.

        Args:
            rebuilt_NCHW: floating, (N, C, H, W), the decoder's output.
            crops_NCHW: the same shape and range, what was embedded.

        Returns:
            A scalar, >= 0.

        Raises:
            ValueError: shapes that do not agree; the message names them.
        """
        if rebuilt_NCHW.shape != crops_NCHW.shape or rebuilt_NCHW.ndim != 4:
            raise ValueError(
                f"crops: got rebuilt {tuple(rebuilt_NCHW.shape)} and crops {tuple(crops_NCHW.shape)}, "
                "wanted two equal (N, C, H, W)"
            )
        return (rebuilt_NCHW - crops_NCHW).square().mean()
