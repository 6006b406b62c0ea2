"""The learning rate over a training, and which weights learn at which share of it."""

import math
from collections.abc import Sequence

from torch import nn

__all__ = ["parameter_groups", "rise_and_fall"]

HEADS = ("last_linear.", "last_bn.", "logits.")


def rise_and_fall(progress: float, *, warm_up: float) -> float:
    """From 0 up to 1 in a line, then down to 0 as a half cosine.

    Args:
        progress: how much of the training is over, in [0, 1]; it is stepped with every batch, never with epochs.
        warm_up: the share of it that rises, in [0, 1).

    References:
        Loshchilov, Hutter. SGDR: Stochastic Gradient Descent with Warm Restarts. ICLR 2017. arXiv:1608.03983, equation 5,
        without restarts. Goyal et al. Accurate, Large Minibatch SGD. 2017. arXiv:1706.02677, section 2.2, for the warm-up.
    """
    if progress < warm_up:
        return progress / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warm_up) / (1 - warm_up))


def parameter_groups(
    network: nn.Module, others: Sequence[nn.Module], *, weight_decay: float, backbone_rate: float
) -> list[dict[str, object]]:
    """Groups for an optimiser, each with its `weight_decay` and its `rate`, a share of the learning rate.

    Weights of layers decay; batch-norms and biases do not. The network's layers before its last linear one and the
    batch-norm after that learn at `backbone_rate`, these two and the other modules at the full rate.

    Args:
        network: the encoder.
        others: modules trained along with it: decoder, classification head.
        weight_decay: of the weights of layers.
        backbone_rate: share of the learning rate, above 0.
    """
    backbone = [p for name, p in network.named_parameters() if not name.startswith(HEADS)]
    fresh = [p for name, p in network.named_parameters() if name.startswith(HEADS)]
    fresh += [p for module in others for p in module.parameters()]
    parts = [(backbone, backbone_rate), (fresh, 1.0)] if backbone_rate != 1 else [(backbone + fresh, 1.0)]
    return [
        {"params": params, "weight_decay": decay, "rate": rate}
        for part, rate in parts
        for params, decay in (
            ([p for p in part if p.ndim > 1], weight_decay),
            ([p for p in part if p.ndim <= 1], 0.0),
        )
        if params
    ]
