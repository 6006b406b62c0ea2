"""First weights of a network that is trained from scratch."""

import torch
from torch import nn

__all__ = ["initialise_he_normal"]


@torch.no_grad()
def initialise_he_normal(network: nn.Module, seed: int) -> None:
    """Draw every weight anew from `seed`; torch's own random state is neither read nor moved.

    Weights are normal, cut at two deviations, with deviation (2 / fan-in)^0.5 before the cut, biases zero, batch-norms the
    identity: signals keep their size even before batch-norm has seen a face.

    Args:
        network: of convolutions, linear layers and batch-norms; other modules stay as they are.
        seed: of the weights.

    References:
        He, Zhang, Ren, Sun. Delving Deep into Rectifiers. ICCV 2015. arXiv:1502.01852. They do not cut the normal.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            deviation = (2.0 / module.weight[0].numel()) ** 0.5
            weight = torch.empty(module.weight.shape)
            nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
            module.weight.copy_(weight)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()
