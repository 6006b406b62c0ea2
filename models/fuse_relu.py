"""Convolutions joined with what follows them, a residual sum and a ReLU: one step on a GPU in place of three or four."""

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

__all__ = ["ConvRelu", "fuse_relu"]

_FAST = (torch.float16, torch.bfloat16)


class ConvRelu(nn.Conv2d):
    """relu(scale * conv(x) + added), the scale being part of the weights.

    On a GPU in half precision cuDNN computes it at once and rounds once, at the end.

    Args:
        conv: what it is made of; left as it is.
        scale: of the convolution's result.
    """

    def __init__(self, conv: nn.Conv2d, *, scale: float = 1.0) -> None:
        kernel, stride, padding, dilation = (
            _pair(size) for size in (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        )
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=conv.groups,
            device="meta",
        )
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        self.weight = nn.Parameter(conv.weight.detach() * scale)
        self.bias = nn.Parameter(bias.to(self.weight) * scale)

    def forward(self, input: Tensor, added: Tensor | None = None) -> Tensor:  # noqa: A002 - torch's own name
        """Floating, (N, C, H, W) in, likewise out; `added` has the shape of the result."""
        how = (list(self.stride), list(_pair(self.padding)), list(self.dilation), self.groups)
        if input.is_cuda and input.dtype in _FAST:
            if added is None:
                return torch.cudnn_convolution_relu(input, self.weight, self.bias, *how)
            return torch.cudnn_convolution_add_relu(input, self.weight, added, 1.0, self.bias, *how)
        found: Tensor = super().forward(input)
        return functional.relu(found if added is None else found + added)


def fuse_relu(network: fx.GraphModule) -> fx.GraphModule:
    """Replace relu(conv(x)) and relu(y + scale * conv(x)) by `ConvRelu`; in place.

    Args:
        network: traced; a convolution whose result is wanted elsewhere too stays as it is.
    """
    for node in list(network.graph.nodes):
        if _is_relu(network, node) and (found := _behind(network, node.args[0])):
            name = f"{found.conv.target}_relu"
            network.add_submodule(name, ConvRelu(network.get_submodule(str(found.conv.target)), scale=found.scale))  # type: ignore[arg-type]
            taken = (found.conv.args[0],) if found.added is None else (found.conv.args[0], found.added)
            with network.graph.inserting_before(node):
                node.replace_all_uses_with(network.graph.call_module(name, taken))
            network.graph.erase_node(node)
    network.graph.eliminate_dead_code()
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
    return network


class _Found(NamedTuple):
    conv: fx.Node
    scale: float
    added: fx.Node | None


def _behind(network: fx.GraphModule, node: Any) -> _Found | None:
    """The convolution, its factor and the summand that a ReLU is taken of, None if it is of something else."""
    if scaled := _scaled(network, node):
        return _Found(*scaled, None)
    if not _is_call(node, operator.add, operator.iadd, torch.add):
        return None
    for one, other in (node.args, reversed(node.args)):
        scaled = _scaled(network, one)
        if scaled and isinstance(other, fx.Node):
            return _Found(*scaled, other)
    return None


def _scaled(network: fx.GraphModule, node: Any) -> tuple[fx.Node, float] | None:
    scale = 1.0
    if _is_call(node, operator.mul, torch.mul):
        numbers = [factor for factor in node.args if isinstance(factor, int | float)]
        if len(numbers) != 1:
            return None
        scale, node = float(numbers[0]), next(factor for factor in node.args if isinstance(factor, fx.Node))
    if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.users) != 1:
        return None
    conv = network.get_submodule(str(node.target))
    plain = type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return (node, scale) if plain else None


def _is_relu(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), nn.ReLU)
    return _is_call(node, functional.relu, torch.relu, alone=False) or (
        node.op == "call_method" and node.target == "relu"
    )


def _is_call(node: Any, *functions: Any, alone: bool = True) -> bool:
    called = isinstance(node, fx.Node) and node.op == "call_function" and node.target in functions
    return called and (not alone or len(node.users) == 1)


def _pair(size: Any) -> tuple[int, int]:
    first, second = size
    return int(first), int(second)
