"""Zero points as runtimes read them rightly: one per channel for lone weights, one initializer per sum."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute, rewired
from lightning_nncf.export.passes.storage import packed

__all__ = ["own_zero_points", "several_zero_points", "spread_zero_points"]


def spread_zero_points(graph: OnnxGraph) -> int:
    """Write the one zero point of a weight that alone is quantized once per output channel.

    OpenVINO before 2025.3 takes the one number for as many as there are channels, and multiplies by what lies behind it
    in memory (fully connected layers, weights of 4 and of 8 bits).

    Args:
        graph: Graph with ``DequantizeLinear`` weights.

    Returns:
        How many weights have more zero points than before.
    """
    replacements: list[tuple[onnx.NodeProto, list[onnx.NodeProto]]] = []
    for node in graph.nodes:
        if node.op_type != "DequantizeLinear" or len(node.input) < 3:
            continue
        integers, scale, zero_point = (graph.constant(name) for name in node.input)
        if integers is None or scale is None or zero_point is None or scale.ndim or not zero_point.astype(np.int64):
            continue
        axis = _output_axis(graph, node, integers.ndim)
        if axis is None:
            continue
        channels, name = integers.shape[axis], node.name.removesuffix("/DequantizeLinear")
        points = np.broadcast_to(zero_point.astype(np.int64), channels)
        new = helper.make_node(
            "DequantizeLinear",
            [
                node.input[0],
                graph.add_constant(f"{name}/scales", np.broadcast_to(scale, channels)),
                _add_points(graph, f"{name}/zero_points", points, zero_point.dtype),
            ],
            list(node.output),
            name=node.name,
            axis=axis,
        )
        replacements.append((node, [new]))
    graph.replace_all(replacements)
    return len(replacements)


def _output_axis(graph: OnnxGraph, weight: onnx.NodeProto, rank: int) -> int | None:
    """Return the axis of the output channels of a weight that only layers on floats read; None for all others."""
    axes: set[int] = set()
    for layer in graph.consumers(weight.output[0]):
        if layer.op_type not in ("Gemm", "MatMul") or list(layer.input[:2]).index(weight.output[0]) != 1:
            return None
        source = graph.producer(layer.input[0])
        if source is not None and source.op_type == "DequantizeLinear":
            return None
        axes.add(0 if layer.op_type == "Gemm" and attribute(layer, "transB", 0) else rank - 1)
    return axes.pop() if len(axes) == 1 and rank == 2 else None


def _add_points(graph: OnnxGraph, name: str, points: NDArray[np.int64], dtype: np.dtype) -> str:
    if dtype in (np.int8, np.uint8):
        return graph.add_constant(name, points.astype(dtype))
    return graph.add_tensor(name, packed(points, signed=bool((points < 0).any())))


def own_zero_points(graph: OnnxGraph) -> int:
    """Give every ``DequantizeLinear`` in front of a sum a zero point that no other one reads.

    OpenVINO (2026.4) multiplies the zero point itself by the number of elements summed, for all of its readers.

    Args:
        graph: Graph with ``DequantizeLinear`` activations.

    Returns:
        How many zero points were written again.
    """
    replacements: list[tuple[onnx.NodeProto, list[onnx.NodeProto]]] = []
    for node in graph.nodes:
        if node.op_type != "DequantizeLinear" or len(node.input) < 3:
            continue
        zero_point = graph.constant(node.input[2])
        summed = any(reader.op_type in ("ReduceSum", "Einsum") for reader in graph.consumers(node.output[0]))
        others = [reader for reader in graph.consumers(node.input[2]) if reader is not node]
        if zero_point is None or not summed or not any(reader.op_type == "DequantizeLinear" for reader in others):
            continue
        own = graph.add_constant(f"{node.name}/zero_point", zero_point)
        replacements.append((node, [rewired(node, inputs={2: own})]))
    graph.replace_all(replacements)
    return len(replacements)


def several_zero_points(graph: OnnxGraph) -> tuple[str, ...]:
    """Return the names of convolutions on integers whose weight has several zero points.

    >>> several_zero_points(OnnxGraph(onnx.ModelProto()))
    ()
    """
    found = []
    for node in graph.nodes:
        if node.op_type != "Conv":
            continue
        source, weight = (graph.producer(name) for name in node.input[:2])
        if source is None or weight is None or {source.op_type, weight.op_type} != {"DequantizeLinear"}:
            continue
        points = graph.constant(weight.input[2]) if len(weight.input) > 2 else None
        if points is not None and len(np.unique(points.astype(np.int64))) > 1:
            found.append(node.name or node.output[0])
    return tuple(found)
