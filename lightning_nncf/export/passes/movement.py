"""Quantizers behind ops that only move values, so that ONNX Runtime sees integers on both of their sides."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph, rewired
from lightning_nncf.export.passes.sources import pads_with_zeros

__all__ = ["repeat_quantizers"]

_MOVING = frozenset(
    {"Concat", "Flatten", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "DepthToSpace"}
)
"""Ops that move values."""
_KEEPING = _MOVING | {"Relu"}
"""Ops whose results lie on the grid of their inputs."""
_COMPUTING = frozenset({"Add", "AveragePool", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "MatMul", "Mul"})
"""Ops that ONNX Runtime runs in integers when their inputs come from a ``DequantizeLinear``."""


def repeat_quantizers(graph: OnnxGraph) -> int:
    """Write the quantizer of a tensor again behind ops that only move its values.

    ONNX Runtime computes a convolution in integers if a ``DequantizeLinear`` stands right before it. Behind a
    concatenation, a split or a ReLU it does not, although the values still lie on the same grid; quantizing them once
    more with the same scale changes nothing and shows it. OpenVINO needs that behind a ReLU.

    Args:
        graph: Graph with ``QuantizeLinear`` and ``DequantizeLinear``.

    Returns:
        How many tensors were quantized again.
    """
    grids = {
        node.output[0]: (node.input[1], node.input[2])
        for node in graph.nodes
        if node.op_type == "DequantizeLinear" and len(node.input) > 2 and _is_activation(graph, node)
    }
    replacements = []
    for node in graph.nodes:
        if node.op_type not in _KEEPING and not pads_with_zeros(graph, node):
            continue
        sources = node.input if node.op_type == "Concat" else node.input[:1]
        found = [grids.get(name) for name in sources]
        if any(grid is None or not _same(graph, grid, found[0]) for grid in found) or found[0] is None:
            continue
        scale, zero_point = found[0]
        moved: dict[int, str] = {}
        new: list[onnx.NodeProto] = []
        for index, name in enumerate(node.output):
            if not _helps(graph, name, node):
                continue
            moved[index] = f"{name}/moved"
            new += [
                _linear("QuantizeLinear", f"{name}/moved", f"{name}/requantized", scale, zero_point),
                _linear("DequantizeLinear", f"{name}/requantized", name, scale, zero_point),
            ]
            grids[name] = (scale, zero_point)
        if new:
            replacements.append((node, [rewired(node, outputs=moved), *new]))
    graph.replace_all(replacements)
    return sum(len(new) // 2 for _, new in replacements)


def _is_activation(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    scale = graph.constant(node.input[1])
    return graph.constant(node.input[0]) is None and scale is not None and scale.ndim == 0


def _same(graph: OnnxGraph, grid: tuple[str, str], other: tuple[str, str] | None) -> bool:
    if other is None:
        return False
    return all(
        name == known or np.array_equal(np.asarray(graph.constant(name)), np.asarray(graph.constant(known)))
        for name, known in zip(grid, other, strict=True)
    )


def _helps(graph: OnnxGraph, name: str, maker: onnx.NodeProto) -> bool:
    """Whether a tensor reaches an op that gains from it and is not quantized already."""
    if name in graph.outputs:
        return False
    kinds = {node.op_type for node in graph.consumers(name)}
    # Average pools are written anew together with the padding before them.
    gaining = _COMPUTING - {"AveragePool"} if maker.op_type == "Pad" else _COMPUTING
    return bool(kinds & (gaining | _KEEPING))


def _linear(op: str, source: str, output: str, scale: str, zero_point: str) -> onnx.NodeProto:
    return helper.make_node(op, [source, scale, zero_point], [output], name=f"{output}/{op}")
