"""Where the values of a tensor come from and go to, as far as runtimes merge quantizers with other ops."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute

__all__ = [
    "MOVING",
    "SCALING",
    "is_activation_dequantize",
    "pads_with_zeros",
    "quantized_source",
    "reaches_quantizer",
    "shield",
]

MOVING = frozenset(
    {"Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)
"""Ops whose results are values of their inputs."""
SCALING = frozenset({"Clip", "Div", "Mul", "Neg"})
"""Ops through which OpenVINO still sees the scale of a ``DequantizeLinear``."""
_COMPUTING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "DequantizeLinear", "LSTM", "GRU", "RNN"})


def is_activation_dequantize(graph: OnnxGraph, node: onnx.NodeProto | None) -> bool:
    """Whether a node dequantizes something that is no constant; a ``FakeQuantize`` does both."""
    kinds = ("DequantizeLinear", "FakeQuantize")
    return node is not None and node.op_type in kinds and graph.constant(node.input[0]) is None


def pads_with_zeros(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    """Whether a node pads with zeros, which are on every grid."""
    if node.op_type != "Pad" or attribute(node, "mode", "constant") != "constant":
        return False
    value = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(())
    return value is not None and not np.any(value)


def quantized_source(graph: OnnxGraph, name: str, through: Container[str]) -> onnx.NodeProto | None:
    """Return the ``DequantizeLinear`` of an activation that a tensor comes from, None if there is none.

    Args:
        graph: The graph.
        name: The tensor.
        through: Ops that may stand between.
    """
    open_names, seen = [name], {name}
    while open_names:
        node = graph.producer(open_names.pop())
        if node is None:
            continue
        if is_activation_dequantize(graph, node):
            return node
        if node.op_type in through:
            new = [source for source in node.input if source and source not in seen]
            seen.update(new)
            open_names += new
    return None


def reaches_quantizer(graph: OnnxGraph, name: str) -> bool:
    """Whether a tensor is quantized, at once or behind ops that a runtime may merge with what makes it."""
    open_names, seen = [name], {name}
    while open_names:
        for node in graph.consumers(open_names.pop()):
            if node.op_type in ("FakeQuantize", "QuantizeLinear"):
                return True
            if node.op_type not in _COMPUTING:
                new = [result for result in node.output if result not in seen]
                seen.update(new)
                open_names += new
    return False


def shield(graph: OnnxGraph, source: str, output: str, name: str) -> onnx.NodeProto:
    """Return a node that changes nothing, and that runtimes neither drop nor merge with what is around it."""
    lowest = graph.add_constant(f"{name}/lowest", np.array(-np.inf, np.float32))
    return helper.make_node("Max", [source, lowest], [output], name=f"{name}/Shield")
