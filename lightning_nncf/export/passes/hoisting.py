"""Quantizers right behind convolutions, where ONNX Runtime needs them, ahead of ops that only move values."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph, rewired
from lightning_nncf.export.passes.sources import MOVING, is_activation_dequantize

__all__ = ["hoist_quantizers"]

_MONOTONE = MOVING | frozenset({"Clip", "Concat", "DepthToSpace", "Relu"})
"""Ops after which it makes no difference whether their inputs were rounded to the grid of their results before."""


def hoist_quantizers(graph: OnnxGraph) -> int:
    """Write the quantizer of a convolution's result right behind it as well.

    ONNX Runtime computes a convolution in integers only if a ``QuantizeLinear`` takes its result, with no more than a
    ReLU between that the quantizer does itself. Where all that becomes of a result is moved, clipped and then rounded
    to one grid, rounding it to that grid at once changes nothing: rounding keeps the order of values.

    Args:
        graph: Graph with ``QuantizeLinear`` and ``DequantizeLinear``.

    Returns:
        How many convolutions have a quantizer behind them now.
    """
    replacements = []
    for node in graph.nodes:
        if node.op_type != "Conv" or not _on_integers(graph, node):
            continue
        grid = _common_grid(graph, node.output[0])
        if grid is None:
            continue
        name, maker = node.output[0], node
        behind = graph.only_consumer(name)
        if behind is not None and _clips_itself(graph, behind, grid):
            name, maker = behind.output[0], behind
            behind = graph.only_consumer(name)
        if behind is not None and behind.op_type == "QuantizeLinear":
            continue
        source = f"{name}/unquantized"
        new = [
            helper.make_node("QuantizeLinear", [source, *grid], [f"{name}/quantized"], name=f"{name}/QuantizeLinear"),
            helper.make_node("DequantizeLinear", [f"{name}/quantized", *grid], [name], name=f"{name}/DequantizeLinear"),
        ]
        replacements.append((maker, [rewired(maker, outputs={0: source}), *new]))
    graph.replace_all(replacements)
    return len(replacements)


def _on_integers(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    weight = graph.producer(node.input[1])
    quantized = weight is not None and weight.op_type == "DequantizeLinear"
    return quantized and is_activation_dequantize(graph, graph.producer(node.input[0]))


def _common_grid(graph: OnnxGraph, name: str) -> tuple[str, str] | None:
    """Return scale and zero point of all the quantizers that a tensor reaches, None if something else takes it."""
    grid: tuple[str, str] | None = None
    open_names, seen = [name], {name}
    while open_names:
        name = open_names.pop()
        if graph.is_read_elsewhere(name):
            return None
        for node in graph.consumers(name):
            if node.op_type == "QuantizeLinear" and len(node.input) > 2:
                found = (node.input[1], node.input[2])
                if not _is_scalar(graph, found[0]) or (grid is not None and not _same(graph, found, grid)):
                    return None
                grid = grid or found
            elif node.op_type in _MONOTONE and (node.op_type == "Concat" or node.input[0] == name):
                new = [output for output in node.output if output not in seen]
                seen.update(new)
                open_names += new
            else:
                return None
    return grid


def _is_scalar(graph: OnnxGraph, name: str) -> bool:
    value = graph.constant(name)
    return value is not None and value.ndim == 0


def _same(graph: OnnxGraph, grid: tuple[str, str], other: tuple[str, str]) -> bool:
    pairs = [(graph.constant(name), graph.constant(known)) for name, known in zip(grid, other, strict=True)]
    return all(a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def _clips_itself(graph: OnnxGraph, node: onnx.NodeProto, grid: tuple[str, str]) -> bool:
    """Whether a node clips no tighter than a quantizer of a grid does, so that ONNX Runtime drops it."""
    scale, zero_point = (np.asarray(graph.constant(name)) for name in grid)
    info = np.iinfo(zero_point.dtype)
    # In float32, as ONNX Runtime does: 255 * (6 / 255) is 6 there, and more in float64.
    ends = [np.float32(limit - int(zero_point)) * np.float32(scale) for limit in (info.min, info.max)]
    if node.op_type == "Relu":
        return bool(ends[0] >= 0)
    if node.op_type != "Clip":
        return False
    bounds = [graph.constant(name) if name else np.array(end) for name, end in zip(node.input[1:], ends, strict=False)]
    bounds += [np.array(end) for end in ends[len(bounds) :]]
    if any(bound is None for bound in bounds):
        return False
    return float(np.asarray(bounds[0])) <= float(ends[0]) and float(np.asarray(bounds[1])) >= float(ends[1])
