"""Integer biases of fully connected layers, without which ONNX Runtime computes them in floating point."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph

__all__ = ["quantize_biases"]

_LIMITS = np.iinfo(np.int32)


def quantize_biases(model: onnx.ModelProto) -> int:
    """Write the constant bias of every Gemm, and of every MatMul with an Add, between dequantized inputs as int32.

    Its scale is the product of the scales of input and weight, as in the accumulator of the integer product, so the
    rounding is far below one level of any activation.

    Args:
        model: Model with ``DequantizeLinear`` inputs and weights, changed in place.

    Returns:
        How many biases were written.
    """
    graph = OnnxGraph(model)
    replacements = []
    for node in graph.nodes:
        found = _biased(graph, node)
        if found is None:
            continue
        product, port = found
        scales = [_scale(graph, name) for name in product.input[:2]]
        bias = graph.constant(node.input[port])
        if bias is None or bias.ndim != 1 or scales[0] is None or scales[1] is None:
            continue
        if scales[0].ndim or scales[1].shape not in ((), bias.shape):
            continue
        scale = np.broadcast_to(scales[0] * scales[1], bias.shape)
        integers = np.rint(bias.astype(np.float64) / scale)
        if not np.all((integers > _LIMITS.min) & (integers < _LIMITS.max)):
            continue
        name = f"{node.name or node.output[0]}/bias"
        inputs = [
            graph.add_constant(f"{name}/integers", integers.astype(np.int32)),
            graph.add_constant(f"{name}/scale", scale.astype(np.float32)),
            graph.add_constant(f"{name}/zero_point", np.zeros(bias.shape, np.int32)),
        ]
        layer = onnx.NodeProto()
        layer.CopyFrom(node)
        layer.input[port] = name
        dequantize = helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}/DequantizeLinear", axis=0)
        replacements.append((node, [dequantize, layer]))
    graph.replace_all(replacements)
    graph.close()
    return len(replacements)


def _biased(graph: OnnxGraph, node: onnx.NodeProto) -> tuple[onnx.NodeProto, int] | None:
    """Return the product that a node adds a bias to, and the bias's port; None if the node is nothing of the kind."""
    if node.op_type == "Gemm" and len(node.input) > 2:
        return node, 2
    if node.op_type == "Add":
        for port in (0, 1):
            product = graph.producer(node.input[1 - port])
            if (
                product is not None
                and product.op_type == "MatMul"
                and graph.only_consumer(product.output[0]) is node
                and graph.constant(node.input[port]) is not None
            ):
                return product, port
    return None


def _scale(graph: OnnxGraph, name: str) -> NDArray[Any] | None:
    node = graph.producer(name)
    if node is None or node.op_type != "DequantizeLinear":
        return None
    scale = graph.constant(node.input[1])
    return None if scale is None else np.asarray(scale, dtype=np.float64)
