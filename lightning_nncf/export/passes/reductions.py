"""Means, sums and extrema in the form that OpenVINO computes rightly beside quantizers.

Measured with OpenVINO 2026.4 (ONNX Runtime is right in each case):

* A mean or sum of a dequantized tensor ``[N, C, L]`` gives as many right rows as its result has channels, and what lies
  in memory for the others. Of ``[N, C, L, 1]`` it is right.
* A maximum or minimum whose result is quantized is rounded to whole numbers and cut to the range of the integers,
  unless its input is dequantized itself, or an op that cannot be merged with it stands behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute, rewired
from lightning_nncf.export.passes.sources import (
    MOVING,
    SCALING,
    is_activation_dequantize,
    quantized_source,
    reaches_quantizer,
    shield,
)

__all__ = ["rewrite_reductions"]

_SUMS = frozenset({"Einsum", "GlobalAveragePool", "ReduceMean", "ReduceSum"})
_EXTREMA = frozenset({"ReduceMax", "ReduceMin"})


def rewrite_reductions(graph: OnnxGraph) -> int:
    """Write reductions beside quantizers so that every runtime computes them rightly.

    Args:
        graph: Graph with ``QuantizeLinear`` and ``DequantizeLinear``.

    Returns:
        How many reductions were written anew.
    """
    wanted = [node for node in graph.nodes if _is_sum(graph, node) or _is_extremum(graph, node)]
    if not wanted:
        return 0
    types = graph.shapes(inferred=True)
    replacements = []
    for node in wanted:
        kind = types.get(node.input[0])
        if kind is not None and kind.elem_type not in (TensorProto.FLOAT, TensorProto.UNDEFINED):
            continue
        rank = len(kind.shape.dim) if kind is not None and kind.HasField("shape") else None
        new = _shielded(graph, node) if node.op_type in _EXTREMA else _sum(graph, node, rank)
        if new:
            replacements.append((node, new))
    graph.replace_all(replacements)
    return len(replacements)


def _is_sum(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    if node.op_type not in _SUMS or len([name for name in node.input if graph.constant(name) is None]) != 1:
        return False
    return quantized_source(graph, node.input[0], MOVING | SCALING) is not None


def _is_extremum(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    if node.op_type not in _EXTREMA or is_activation_dequantize(graph, graph.producer(node.input[0])):
        return False
    return reaches_quantizer(graph, node.output[0])


def _shielded(graph: OnnxGraph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return an extremum with a shield behind it."""
    name, bare = node.name or node.output[0], rewired(node, outputs={0: f"{node.output[0]}/reduced"})
    return [bare, shield(graph, bare.output[0], node.output[0], name)]


def _sum(graph: OnnxGraph, node: onnx.NodeProto, rank: int | None) -> list[onnx.NodeProto]:
    """Return a mean or a sum of three dimensions over four; nothing where it is right as it is."""
    name, source, output = node.name or node.output[0], node.input[0], node.output[0]
    if rank is None or node.op_type == "Einsum":
        plain = rewired(node, inputs={0: f"{name}/shielded"})
        return [shield(graph, source, plain.input[0], name), plain]
    axes = _axes(graph, node, rank)
    if rank != 3 or axes is None or 0 in axes:
        return []
    last = graph.add_constant(f"{name}/last", np.array([3], np.int64))
    keeps = node.op_type == "GlobalAveragePool" or bool(attribute(node, "keepdims", 1))
    result = f"{output}/of_four" if keeps else output
    wide = helper.make_node("Unsqueeze", [source, last], [f"{name}/unsqueezed"], name=f"{name}/Unsqueeze")
    reduced = rewired(node, inputs={0: wide.output[0]}, outputs={0: result})
    if node.op_type != "GlobalAveragePool":
        _set_axes(graph, reduced, [*axes, 3], name)
    new = [wide, reduced]
    if keeps:
        new.append(helper.make_node("Squeeze", [result, last], [output], name=f"{name}/Squeeze"))
    return new


def _axes(graph: OnnxGraph, node: onnx.NodeProto, rank: int) -> list[int] | None:
    """Return the axes that a node reduces, None if they are not known or there are none."""
    if node.op_type == "GlobalAveragePool":
        return list(range(2, rank))
    given = attribute(node, "axes")
    if given is None and len(node.input) > 1 and node.input[1]:
        constant = graph.constant(node.input[1])
        given = None if constant is None else constant.tolist()
    return [axis % rank for axis in given] if given else None


def _set_axes(graph: OnnxGraph, node: onnx.NodeProto, axes: Sequence[int], name: str) -> None:
    for item in node.attribute:
        if item.name == "axes":
            item.ints[:] = axes
            return
    node.input[1] = graph.add_constant(f"{name}/axes", np.array(axes, np.int64))
