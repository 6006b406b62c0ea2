"""Batch-norm statistics measured anew, for a network whose weights have just moved.

N faces, C channels, H rows, W columns.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["recalibrate_batch_norm"]


@torch.no_grad()
def recalibrate_batch_norm(network: nn.Module, batches_NCHW: Iterable[Tensor]) -> None:
    """Replace every batch-norm's running statistics by the plain mean over `batches_NCHW`.

    In training running statistics trail behind the weights; after a few hundred steps on a small set they describe a network
    that no longer is.

    Args:
        network: is left in evaluation mode; its weights stay.
        batches_NCHW: the network's inputs, each of at least two faces.

    References:
        Izmailov, Podoprikhin, Garipov, Vetrov, Wilson. Averaging Weights Leads to Wider Optima and Better Generalization.
        UAI 2018. arXiv:1803.05407, section 3.2; they do it for averaged weights, we for those of the last step.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for inputs_NCHW in batches_NCHW:
        network(inputs_NCHW)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
