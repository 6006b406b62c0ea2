"""Batch-norms folded into the layers before them: the same function with half as many steps."""

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

__all__ = ["fold_batch_norm"]


def fold_batch_norm(network: nn.Module) -> fx.GraphModule:
    """A network for inference in which every batch-norm behind a convolution or a linear layer has become part of it.

    With running mean m, variance v, weight g and bias b, `g * (W x - m) / (v + eps)^0.5 + b` is again linear in x.

    Args:
        network: in evaluation mode; it is left as it is, apart from parameters that both share.

    Raises:
        ValueError: the network is in training mode, where a batch-norm is no fixed function.
    """
    if network.training:
        raise ValueError("fold_batch_norm: the network is in training mode; call eval() first")
    folded = fx.symbolic_trace(network)
    with torch.no_grad():
        for node in list(folded.graph.nodes):
            if node.op == "call_module" and isinstance(_module(folded, node), nn.BatchNorm1d | nn.BatchNorm2d):
                _fold(folded, node)
    folded.graph.lint()
    folded.recompile()
    folded.delete_all_unused_submodules()
    return folded


def _fold(folded: fx.GraphModule, norm: fx.Node) -> None:
    before = norm.args[0]
    if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
        return
    layer, batch_norm = _module(folded, before), _module(folded, norm)
    if isinstance(layer, nn.Conv2d) and isinstance(batch_norm, nn.BatchNorm2d):
        one: nn.Module = fuse_conv_bn_eval(layer, batch_norm)
    elif isinstance(layer, nn.Linear) and isinstance(batch_norm, nn.BatchNorm1d):
        one = fuse_linear_bn_eval(layer, batch_norm)
    else:
        return
    folded.set_submodule(str(before.target), one)
    norm.replace_all_uses_with(before)
    folded.graph.erase_node(norm)


def _module(folded: fx.GraphModule, node: fx.Node) -> nn.Module:
    return folded.get_submodule(str(node.target))
