"""Factors between a quantizer and a product of matrices, which keep that in float: the scale of attention scores."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph
from lightning_nncf.export.passes.sources import is_activation_dequantize

__all__ = ["fold_factors"]


def fold_factors(graph: OnnxGraph) -> int:
    """Multiply the scale of a quantized tensor by the factor that it is multiplied by before a MatMul.

    Both runtimes compute a product of two tensors in integers only if a ``DequantizeLinear`` stands right before it.
    The integers stay what they are, and so do the products up to the rounding of floats.

    Args:
        graph: Graph with ``QuantizeLinear`` and ``DequantizeLinear``.

    Returns:
        How many factors were folded.
    """
    replacements = []
    for node in graph.nodes:
        taker = graph.only_consumer(node.output[0]) if node.op_type in ("Div", "Mul") else None
        if taker is None or taker.op_type != "MatMul":
            continue
        for port in (0,) if node.op_type == "Div" else (0, 1):
            above = graph.producer(node.input[port])
            if above is None or above.op_type != "DequantizeLinear" or not is_activation_dequantize(graph, above):
                continue
            scale, factor = graph.constant(above.input[1]), _factor(graph, node, 1 - port)
            if scale is None or scale.ndim or factor is None:
                continue
            name = node.name or node.output[0]
            folded = graph.add_constant(f"{name}/folded_scale", np.asarray(scale * factor, scale.dtype))
            inputs = [above.input[0], folded, *above.input[2:]]
            reader = helper.make_node("DequantizeLinear", inputs, [node.output[0]], name=f"{name}/DequantizeLinear")
            replacements.append((node, [reader]))
            break
    graph.replace_all(replacements)
    return len(replacements)


def _factor(graph: OnnxGraph, node: onnx.NodeProto, port: int) -> float | None:
    """Return what a node multiplies by, None if that is no positive number."""
    constant = graph.constant(node.input[port])
    if constant is None or constant.size != 1 or constant.ndim > 1 or constant.item() <= 0:
        return None
    return 1 / float(constant.item()) if node.op_type == "Div" else float(constant.item())
