"""Some convolutions of an OpenVINO network in bfloat16 and all else in float32, on processors that multiply bfloat16.

OpenVINO takes one precision for a whole network, and rounds a node's inputs to it unless the node is marked as one that must
stay precise. So everything is marked that was not chosen. (Conversions written into the network instead are no way out:
OpenVINO 2026.4 truncates half of the values there, where the hint rounds to nearest.)
"""

import functools
import sys
from typing import Any

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its import would report to its makers
import openvino  # noqa: E402

__all__ = ["bfloat16_convolutions", "compile_network", "multiplies_bfloat16"]

_MARKED = b"""<net name="marked" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="1" element_type="f32"/><output><port id="0" precision="FP32"><dim>1</dim></port>
</output></layer>
<layer id="1" name="y" type="ReLU" version="opset1"><rt_info><attribute name="precise" version="0"/></rt_info>
<input><port id="0" precision="FP32"><dim>1</dim></port></input><output><port id="1" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="2" name="z" type="Result" version="opset1"><input><port id="0" precision="FP32"><dim>1</dim></port></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/><edge from-layer="1" from-port="1" to-layer="2" to-port="0"/>
</edges></net>"""
"""A network with a mark in it: Python can copy a mark and not make one."""


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it, and OpenVINO uses them."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compile_network(model: Any, *, threads: int, bfloat16_layers: tuple[str, ...] = ()) -> Any:
    """An `openvino.CompiledModel` for the processor.

    Args:
        model: an `openvino.Model` whose convolutions bear their layers' names; marks are added to it.
        threads: of one call.
        bfloat16_layers: how the names of the convolutions begin that are computed in bfloat16 where the processor can, and
            if OpenVINO then leaves all others alone; otherwise all are computed in float32.
    """
    if bfloat16_layers and multiplies_bfloat16():
        chosen = _mark_all_but(model, bfloat16_layers)
        compiled = _compile(model, "bf16", threads=threads)
        if _in_bfloat16(compiled) <= chosen:
            return compiled
    return _compile(model, "f32", threads=threads)


def bfloat16_convolutions(compiled: Any) -> int:
    """How many of a compiled network's convolutions are computed in bfloat16."""
    return sum(_fact(node, "layerType") == "Convolution" for node in _computing_bfloat16(compiled))


def _compile(model: Any, precision: str, *, threads: int) -> Any:
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "ENABLE_CPU_PINNING": False,
    }
    return openvino.Core().compile_model(model, "CPU", settings)


def _mark_all_but(model: Any, layers: tuple[str, ...]) -> set[str]:
    """Mark what must stay float32; the names of what need not."""
    chosen: set[str] = set()
    for node in reversed(model.get_ordered_ops()):
        if node.get_type_name() in {"Constant", "Parameter", "Result"}:
            continue
        if _may_round(node, layers, chosen):
            chosen.add(node.get_friendly_name())
        else:
            node.set_rt_info(*_mark())
    return chosen


def _may_round(node: Any, layers: tuple[str, ...], chosen: set[str]) -> bool:
    """Whether it is a layer that was chosen, or brings one's result to others of them only; a residual sum never does."""
    kind = node.get_type_name()
    if kind == "Convolution":
        return bool(node.get_friendly_name().startswith(layers))
    adds_bias = kind == "Add" and any(
        node.input_value(side).get_node().get_type_name() == "Constant" for side in (0, 1)
    )
    brings = kind in {"Relu", "Concat"} or adds_bias
    return brings and {reader.get_friendly_name() for reader in _readers(node)} <= chosen


def _readers(node: Any) -> list[Any]:
    return [port.get_node() for output in node.outputs() for port in output.get_target_inputs()]


@functools.cache
def _mark() -> tuple[Any, str]:
    """The mark and its name."""
    marked = next(node for node in openvino.Core().read_model(_MARKED, b"").get_ops() if node.get_type_name() == "Relu")
    return next((mark, name) for name, mark in marked.get_rt_info().items())


def _in_bfloat16(compiled: Any) -> set[str]:
    return {node.get_friendly_name() for node in _computing_bfloat16(compiled)}


def _computing_bfloat16(compiled: Any) -> list[Any]:
    """The nodes whose arithmetic is in bfloat16; those that only bring numbers to another type or layout are none."""
    nodes = compiled.get_runtime_model().get_ordered_ops()
    return [
        node
        for node in nodes
        if _fact(node, "runtimePrecision") == "bf16" and _fact(node, "layerType") not in {"Reorder", "Const", "Input"}
    ]


def _fact(node: Any, name: str) -> str:
    return str(node.get_rt_info()[name].astype(str))
