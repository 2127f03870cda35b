"""Clips of floats before quantizers of few levels, which keep convolutions in float in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from lightning_nncf.export.onnx_graph import OnnxGraph, rewired

__all__ = ["merge_clips"]


def merge_clips(graph: OnnxGraph) -> int:
    """Let the clip of integers behind a quantizer do what a clip of floats in front of it does (ReLU6).

    Rounding never changes an order, so the integers are the same. Quantizers without a clip of integers are left alone:
    OpenVINO would run their layers in float with one.

    Args:
        graph: Graph with ``QuantizeLinear`` nodes.

    Returns:
        How many clips were merged.
    """
    replacements: list[tuple[onnx.NodeProto, list[onnx.NodeProto]]] = []
    for node in graph.nodes:
        if node.op_type != "QuantizeLinear":
            continue
        before, behind = graph.producer(node.input[0]), graph.only_consumer(node.output[0])
        if before is None or before.op_type != "Clip" or behind is None or behind.op_type != "Clip":
            continue
        scale, zero_point = graph.constant(node.input[1]), graph.constant(node.input[2])
        floats, integers = _bounds(graph, before), _bounds(graph, behind)
        if scale is None or zero_point is None or scale.ndim or floats is None or integers is None:
            continue
        low, high = (
            np.clip(np.rint(bound.astype(np.float64) / scale) + zero_point, *integers).astype(zero_point.dtype)
            for bound in floats
        )
        bounds = {
            port: graph.add_constant(f"{behind.name}/{end}", np.asarray(value))
            for port, end, value in ((1, "low", low), (2, "high", high))
        }
        replacements += [
            (node, [rewired(node, inputs={0: before.input[0]})]),
            (behind, [rewired(behind, inputs=bounds)]),
        ]
    graph.replace_all(replacements)
    return len(replacements) // 2


def _bounds(graph: OnnxGraph, clip: onnx.NodeProto) -> tuple[NDArray[np.generic], NDArray[np.generic]] | None:
    """Return both bounds of a clip; None if one is missing or no constant."""
    if len(clip.input) != 3 or not all(clip.input):
        return None
    low, high = (graph.constant(name) for name in clip.input[1:])
    return None if low is None or high is None else (low, high)
