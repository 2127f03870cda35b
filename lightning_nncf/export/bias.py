"""Integer biases of fully connected layers, without which ONNX Runtime computes them in floating point."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph

__all__ = ["quantize_gemm_biases"]

_LIMITS = np.iinfo(np.int32)


def quantize_gemm_biases(model: onnx.ModelProto) -> int:
    """Write the constant bias of every Gemm between dequantized inputs as int32, in place.

    Its scale is the product of the scales of input and weight, as in the accumulator of the integer product, so the
    rounding is far below one level of any activation.

    Args:
        model: Model with ``DequantizeLinear`` inputs and weights.

    Returns:
        How many biases were written.
    """
    graph = OnnxGraph(model)
    replacements = []
    for node in graph.nodes:
        if node.op_type != "Gemm" or len(node.input) < 3:
            continue
        scales = [_scale(graph, name) for name in node.input[:2]]
        bias = graph.constant(node.input[2])
        if bias is None or bias.ndim != 1 or scales[0] is None or scales[1] is None or scales[0].ndim:
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
        layer.input[2] = name
        dequantize = helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}/DequantizeLinear", axis=0)
        replacements.append((node, [dequantize, layer]))
    graph.replace_all(replacements)
    graph.close()
    return len(replacements)


def _scale(graph: OnnxGraph, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    node = graph.producer(name)
    if node is None or node.op_type != "DequantizeLinear":
        return None
    scale = graph.constant(node.input[1])
    return None if scale is None else np.asarray(scale, dtype=np.float64)
