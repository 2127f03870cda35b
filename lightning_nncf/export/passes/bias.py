"""Integer biases, without which runtimes compute the layers around them in floating point.

ONNX Runtime takes a float bias of a convolution for an integer one only from 1.23 on, and that of a fully connected
layer at the end of a network never.
"""

from __future__ import annotations

import numpy as np
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph, rewired
from lightning_nncf.export.passes.biased_layers import BiasedLayer, biased_layers

__all__ = ["quantize_biases"]

_LIMITS = np.iinfo(np.int32)


def quantize_biases(graph: OnnxGraph) -> int:
    """Write the constant bias of every Conv, Gemm, and MatMul with an Add, between dequantized inputs as int32.

    Its scale is the product of the scales of input and weight, as in the accumulator of the integer product, so the
    rounding is far below one level of any activation.

    Args:
        graph: Graph with ``DequantizeLinear`` inputs and weights.

    Returns:
        How many biases were written.
    """
    replacements = []
    for found in biased_layers(graph):
        scale = np.broadcast_to(found.step, found.bias.shape)
        integers = np.rint(found.bias.astype(np.float64) / scale)
        if not np.all((integers > _LIMITS.min) & (integers < _LIMITS.max)) or _must_stay_float(graph, found):
            continue
        name = f"{found.node.name or found.node.output[0]}/bias"
        inputs = [
            graph.add_constant(f"{name}/integers", integers.astype(np.int32)),
            graph.add_constant(f"{name}/scale", scale.astype(np.float32)),
        ]
        dequantize = helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}/DequantizeLinear", axis=0)
        replacements.append((found.node, [dequantize, rewired(found.node, inputs={found.port: name})]))
    graph.replace_all(replacements)
    return len(replacements)


def _must_stay_float(graph: OnnxGraph, found: BiasedLayer) -> bool:
    """Whether an integer bias would do harm in ONNX Runtime.

    Up to 1.26 it takes one zero point of a weight only: it refuses to run an integer convolution with more, and up to
    1.22 a float bias keeps such layers in float. Of two quantizers in a row it makes one with another scale, which an
    integer bias then does not fit, and computes the layer in float.
    """
    if found.product.op_type != "Conv":
        return False
    zero_points = graph.constant(found.weight.input[2]) if len(found.weight.input) > 2 else None
    several = zero_points is not None and len(np.unique(zero_points)) > 1
    return several or _quantized_twice(graph, found.product.input[0])


def _quantized_twice(graph: OnnxGraph, name: str) -> bool:
    """Whether what a tensor was quantized from had just been dequantized."""
    node = graph.producer(name)
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        while node is not None and node.op_type == "Clip":
            node = graph.producer(node.input[0])
        if node is None or node.op_type != kind:
            return False
        node = graph.producer(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"
