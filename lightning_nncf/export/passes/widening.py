"""Weights of few bits on integers that fill 8 bits, so that the biases of their layers round less.

A runtime adds the bias to the integer sums of products, in steps of the input's scale times the weight's. With 4 bits
in both these steps are wide: in an untrained MobileNetV2 up to 12 times that of the layer's output, and biases rounded
to them move every output by several steps. Integers times a power of two under a scale divided by it stand for the same
values and make the steps finer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lightning_nncf.export.onnx_graph import OnnxGraph, rewired

__all__ = ["widen_weights"]

_NARROW = 16
"""Largest magnitude of a 4-bit integer, also behind a zero point."""
_SUM = 32767
"""Largest sum of two products that a processor without VNNI holds before it saturates."""


def widen_weights(graph: OnnxGraph, labels: Iterable[str]) -> dict[str, int]:
    """Multiply the integers of narrow weights by as large a power of two as keeps sums of two products in 16 bits.

    Only weights of layers that compute on integers are touched: each reader of the integers dequantizes them for layers
    whose other input is dequantized too.

    Args:
        graph: Graph with ``DequantizeLinear`` weights in 8-bit initializers.
        labels: Labels of the weight quantizers, which the nodes are named after.

    Returns:
        The factor of each initializer that was changed.
    """
    starts = tuple(f"{label}/" for label in labels)
    names = dict.fromkeys(
        node.input[0] for node in graph.nodes if node.op_type == "DequantizeLinear" and node.name.startswith(starts)
    )
    replacements: list[tuple[onnx.NodeProto, list[onnx.NodeProto]]] = []
    factors: dict[str, int] = {}
    for name in names:
        integers, readers = graph.constant(name), graph.consumers(name)
        if integers is None or graph.producer(name) is not None or integers.dtype != np.int8:
            continue
        factor = _factor(graph, integers, readers)
        if factor == 1:
            continue
        wide = graph.add_constant(f"{name}/wide", integers * np.int8(factor))
        factors[wide] = factor
        for node in readers:
            scale = np.asarray(graph.constant(node.input[1])) / np.float32(factor)
            finer = graph.add_constant(f"{node.input[1]}/wide", scale)
            replacements.append((node, [rewired(node, inputs={0: wide, 1: finer})]))
    graph.replace_all(replacements)
    return factors


def _factor(graph: OnnxGraph, integers: NDArray[Any], readers: Iterable[onnx.NodeProto]) -> int:
    """Return the factor that a weight takes, 1 if none."""
    largest = int(np.abs(integers.astype(np.int64)).max(initial=0))
    if not 0 < largest <= _NARROW:
        return 1
    room = 127
    for reader in readers:
        if reader.op_type != "DequantizeLinear" or np.any(graph.constant(reader.input[2])):
            return 1
        for layer in graph.consumers(reader.output[0]):
            highest = _highest_input(graph, layer, reader.output[0])
            if highest is None:
                return 1
            room = min(room, _SUM // (2 * highest))
    factor = 1
    while 2 * factor * largest <= room:
        factor *= 2
    return factor


def _highest_input(graph: OnnxGraph, layer: onnx.NodeProto, weight: str) -> int | None:
    """Return the largest integer of the activation that a layer multiplies a weight with; None if it is no integer."""
    for name in layer.input[:2]:
        producer = graph.producer(name)
        if name == weight or producer is None or producer.op_type != "DequantizeLinear":
            continue
        if graph.constant(producer.input[0]) is not None:
            continue
        source = graph.producer(producer.input[0])
        high = graph.constant(source.input[2]) if source is not None and source.op_type == "Clip" else None
        return 255 if high is None else max(int(high), 1)
    return None
