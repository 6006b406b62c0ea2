"""A network of this project on the processor, by OpenVINO: of the runtimes measured the fastest (benchmarks/embed.py).

The network's own code is followed step by step with OpenVINO's nodes in place of tensors, so that there is one description
of each network, and nothing is traced, written or read on the way.

N faces, C channels, H rows, W columns, D dimensions of an embedding.
"""

import operator
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.nn import functional

from models.fold_batch_norm import fold_batch_norm
from models.fuse_relu import ConvRelu, fuse_relu
from models.openvino_precision import bfloat16_convolutions, compile_network

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its import would report to its makers
import openvino  # noqa: E402
from openvino import opset1  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

__all__ = ["OpenVinoNetwork", "openvino_graph"]

FloatArray = NDArray[np.float32]
BATCH_FACES = 8


class OpenVinoNetwork:
    """Preprocessed faces to embeddings, float32, `BATCH_FACES` at a time: more no longer fit the processor's caches.

    A face's embedding does not depend on its company, to the last bit: the same instructions compute it. Threads may share
    a network.

    Args:
        network: in evaluation mode.
        height: of its input, in pixels.
        width: of its input.
        threads: of one call.
        bfloat16_layers: how the names of the convolutions begin that are computed in bfloat16 where the processor multiplies
            such numbers: their inputs and weights are rounded to 8 bits, sums stay float32. Without it all is float32.

    Raises:
        NotImplementedError: the network has a step that this module does not know; the message names it.
    """

    def __init__(
        self, network: nn.Module, *, height: int, width: int, threads: int = 1, bfloat16_layers: tuple[str, ...] = ()
    ) -> None:
        graph = openvino_graph(network, height=height, width=width)
        self._compiled = compile_network(graph, threads=threads, bfloat16_layers=bfloat16_layers)
        self._requests = threading.local()

    @property
    def bfloat16_convolutions(self) -> int:
        """How many convolutions are computed in bfloat16."""
        return bfloat16_convolutions(self._compiled)

    def __call__(self, inputs_NCHW: FloatArray) -> FloatArray:
        """Embeddings, float32 (N, D), of preprocessed faces, float32 (N, 3, H, W); N at least 1."""
        request = self._request()
        parts = []
        for start in range(0, len(inputs_NCHW), BATCH_FACES):
            faces_NCHW = np.ascontiguousarray(inputs_NCHW[start : start + BATCH_FACES])
            parts.append(request.infer([faces_NCHW], share_inputs=True, share_outputs=True)[0].copy())
        return np.concatenate(parts)

    def _request(self) -> Any:
        """This thread's own request."""
        request = getattr(self._requests, "of_this_thread", None)
        if request is None:
            request = self._requests.of_this_thread = self._compiled.create_infer_request()
        return request


def openvino_graph(network: nn.Module, *, height: int, width: int) -> Any:
    """An `openvino.Model` of the network for inputs, float32 (N, 3, height, width), of any N.

    Raises:
        NotImplementedError: the network has a step that this module does not know; the message names it.
    """
    pixels = ops.parameter([-1, 3, height, width], np.float32)
    with torch.no_grad():
        embeddings = _Translation(fuse_relu(fold_batch_norm(network))).run(pixels.output(0))
    return openvino.Model([embeddings], [pixels], "encoder")


class _Translation(fx.Interpreter):
    """Runs a network's steps on OpenVINO's outputs: each call adds the node that does the same."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.extra_traceback = False  # costs ten seconds of imports when a step fails
        self._functions: dict[Any, Callable[..., Any]] = {
            functional.relu: _relu,
            functional.max_pool2d: _max_pool,
            functional.normalize: _normalise,
            torch.cat: _concat,
            operator.add: _add,
            operator.mul: _multiply,
        }
        self._methods: dict[str, Callable[..., Any]] = {"float": lambda x: x, "mean": _mean}
        self._modules: dict[type[nn.Module], Callable[..., Any]] = {
            nn.Conv2d: _convolution,
            ConvRelu: _convolution_relu,
            nn.Linear: _linear,
        }

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The node for a layer with weights."""
        module = self.fetch_attr(target)
        return self._node(self._modules, type(module), args, {"layer": module, "name": str(target), **kwargs})

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The node for a function."""
        return self._node(self._functions, target, args, kwargs)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The node for a tensor's method."""
        return self._node(self._methods, target, args, kwargs)

    def _node(self, known: dict[Any, Callable[..., Any]], what: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        if what not in known:
            name = getattr(what, "__name__", what)
            raise NotImplementedError(f"no OpenVINO node is known for {name}; add it to models/openvino_network.py")
        node = known[what](*args, **kwargs)
        return node.output(0) if hasattr(node, "output") else node


def _convolution(x: Any, *, layer: nn.Conv2d, name: str) -> Any:
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise NotImplementedError(f"no OpenVINO node is known for {layer}; add it to models/openvino_network.py")
    padding = list(layer.padding)
    y = ops.convolution(x, _floats(layer.weight), list(layer.stride), padding, padding, list(layer.dilation))
    y.set_friendly_name(name)
    return y if layer.bias is None else ops.add(y, _floats(layer.bias.reshape(1, -1, 1, 1)))


def _convolution_relu(x: Any, added: Any = None, *, layer: ConvRelu, name: str) -> Any:
    y = _convolution(x, layer=layer, name=name)
    return ops.relu(y if added is None else ops.add(y, added))


def _linear(x: Any, *, layer: nn.Linear, name: str) -> Any:
    """A 1 x 1 convolution: OpenVINO has no other step for it that stays float32 beside bfloat16."""
    conv = nn.Conv2d(layer.in_features, layer.out_features, 1, bias=layer.bias is not None, device="meta")
    conv.weight = nn.Parameter(layer.weight[:, :, None, None])
    conv.bias = layer.bias
    y = _convolution(ops.reshape(x, _integers([0, 0, 1, 1]), True), layer=conv, name=name)
    return ops.reshape(y, _integers([0, 0]), True)


def _relu(x: Any, inplace: bool) -> Any:
    return ops.relu(x)


def _max_pool(
    x: Any, kernel_size: int, stride: int, padding: int, dilation: int, ceil_mode: bool, return_indices: bool
) -> Any:
    if dilation != 1 or ceil_mode or return_indices:
        raise NotImplementedError(
            "no OpenVINO node is known for such a max_pool2d; add it to models/openvino_network.py"
        )
    return opset1.max_pool(x, [stride] * 2, [padding] * 2, [padding] * 2, [kernel_size] * 2, "floor")


def _concat(parts: Sequence[Any], dim: int) -> Any:
    return ops.concat(list(parts), axis=dim)


def _add(a: Any, b: Any) -> Any:
    return ops.add(_value(a), _value(b))


def _multiply(a: Any, b: Any) -> Any:
    return ops.multiply(_value(a), _value(b))


def _mean(x: Any, dim: tuple[int, ...]) -> Any:
    return ops.reduce_mean(x, _integers(dim), False)


def _normalise(x: Any, p: float, dim: int, eps: float, out: None) -> Any:
    if p != 2:
        raise NotImplementedError(f"no OpenVINO node is known for normalize with p={p}")
    length = ops.sqrt(ops.reduce_sum(ops.multiply(x, x), _integers([dim]), True))
    return ops.divide(x, ops.maximum(length, _value(eps)))


def _value(x: Any) -> Any:
    return ops.constant(np.float32(x)) if isinstance(x, int | float) else x


def _floats(values: torch.Tensor) -> Any:
    return ops.constant(np.ascontiguousarray(values.detach().numpy(), dtype=np.float32))


def _integers(values: Sequence[int]) -> Any:
    return ops.constant(np.array(values, np.int64))
