"""Steps of weights that are wide enough for the bias of their layer.

A runtime that computes a layer on integers adds its bias as a 32-bit integer, in steps of the input's scale times the
weight's. Where a channel has tiny weights beside an ordinary bias, as filters that training has given up, or the input
is tiny, the bias does not fit: ONNX Runtime then computes that channel wrongly without a word. A larger step under such
a weight costs nothing: whatever the channel adds to its bias is far below one level of any output.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute, rewired

__all__ = ["make_room_for_biases"]

_ROOM = 2.0**30
_WIDENED = 16
_ROOM_TO_WIDEN = 2.0**24
"""The integers of weights this narrow are multiplied afterwards, by up to 64."""


def make_room_for_biases(graph: OnnxGraph) -> int:
    """Raise the scales of weights, channel by channel, to where the biases of their layers fit 32 bits.

    Args:
        graph: Graph with ``DequantizeLinear`` weights in 8-bit initializers.

    Returns:
        How many channels were changed.
    """
    replacements = []
    changed = 0
    for node in graph.nodes:
        if node.op_type != "DequantizeLinear" or graph.producer(node.input[0]) is not None:
            continue
        integers, scale = graph.constant(node.input[0]), graph.constant(node.input[1])
        if integers is None or scale is None or integers.dtype.itemsize != 1 or len(node.input) < 3:
            continue
        needs = [_need(graph, reader, node.output[0], integers) for reader in graph.consumers(node.output[0])]
        found = [need for need in needs if need is not None]
        if not needs or len(found) < len(needs) or len({axis for axis, _ in found}) > 1:
            continue
        axis, least = found[0][0], np.max([need for _, need in found], axis=0)
        own = _along(scale, axis, attribute(node, "axis", 1), integers)
        if own is None or np.all(least <= own):
            continue
        shape = [1] * integers.ndim
        shape[axis] = -1
        wide = np.maximum(own, least).astype(np.float32)
        point = np.broadcast_to(np.asarray(graph.constant(node.input[2])).reshape(-1), own.shape)
        zero = point.astype(np.float64).reshape(shape)
        moved = np.rint((integers - zero) * (own / wide).reshape(shape)) + zero
        values = (moved.astype(integers.dtype), wide, point.astype(integers.dtype))
        inputs = {port: graph.add_constant(f"{node.input[port]}/room", value) for port, value in enumerate(values)}
        reader = rewired(node, inputs=inputs, attributes=[onnx.helper.make_attribute("axis", axis)])
        replacements.append((node, [reader]))
        changed += int(np.sum(least > own))
    graph.replace_all(replacements)
    return changed


def _need(
    graph: OnnxGraph, layer: onnx.NodeProto, weight: str, integers: NDArray[np.integer]
) -> tuple[int, NDArray[np.float64]] | None:
    """Return the axis of the output channels and the scale that each needs; None if that cannot be told."""
    if layer.op_type not in ("Conv", "Gemm", "MatMul") or layer.input[1] != weight or layer.input[0] == weight:
        return None
    axis = 0 if layer.op_type == "Conv" or attribute(layer, "transB", 0) else integers.ndim - 1
    channels = integers.shape[axis]
    bias = _bias(graph, layer)
    producer = graph.producer(layer.input[0])
    step = None if producer is None or producer.op_type != "DequantizeLinear" else graph.constant(producer.input[1])
    if bias is None or step is None or step.size != 1 or bias.shape != (channels,):
        return axis, np.zeros(channels)
    narrow = int(np.abs(integers.astype(np.int64)).max(initial=0)) <= _WIDENED
    return axis, np.abs(bias.astype(np.float64)) / (float(step.reshape(())) * (_ROOM_TO_WIDEN if narrow else _ROOM))


def _bias(graph: OnnxGraph, layer: onnx.NodeProto) -> NDArray[np.floating] | None:
    """Return the bias of a layer, which of a MatMul is in the Add behind it."""
    if layer.op_type != "MatMul":
        return graph.constant(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else None
    adding = graph.only_consumer(layer.output[0])
    if adding is None or adding.op_type != "Add":
        return None
    others = [graph.constant(name) for name in adding.input if name != layer.output[0]]
    return others[0] if others else None


def _along(
    scale: NDArray[np.floating], axis: int, own_axis: int, integers: NDArray[np.integer]
) -> NDArray[np.float64] | None:
    """Return scales along an axis, None if they lie along another."""
    if scale.ndim == 1 and scale.size > 1 and own_axis % integers.ndim != axis:
        return None
    values = scale.astype(np.float64).reshape(-1)
    return np.broadcast_to(values, (integers.shape[axis],)) if scale.ndim < 2 else None
