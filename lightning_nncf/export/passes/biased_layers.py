"""Layers on integers that add a bias to their sums of products: what passes over biases and scales look for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute

__all__ = ["BiasedLayer", "biased_layers"]


@dataclass(frozen=True, kw_only=True)
class BiasedLayer:
    """A Conv, a Gemm, or a MatMul with an Add, between dequantized inputs and weights.

    Args:
        node: The node that takes the bias.
        port: The bias among its inputs.
        product: The node that multiplies; `node` itself unless that is an Add.
        weight: The ``DequantizeLinear`` of the weight.
        axis: Axis of the output channels in the weight.
        bias: Its values, ``[C]``.
        step: What one integer of the sums stands for: the input's scale times the weight's, ``[C]`` or ``[]``.
    """

    node: onnx.NodeProto
    port: int
    product: onnx.NodeProto
    weight: onnx.NodeProto
    axis: int
    bias: NDArray[Any]
    step: NDArray[Any]


def biased_layers(graph: OnnxGraph) -> Iterator[BiasedLayer]:
    """Yield the layers of a graph that compute on integers and add a constant bias of one value per output channel."""
    for node in graph.nodes:
        found = _biased(graph, node)
        if found is None:
            continue
        product, port = found
        source, weight = (graph.producer(name) for name in product.input[:2])
        bias = graph.constant(node.input[port])
        if source is None or weight is None or bias is None or bias.ndim != 1:
            continue
        scales = [_scale(graph, item) for item in (source, weight)]
        if scales[0] is None or scales[1] is None or scales[0].ndim or scales[1].shape not in ((), bias.shape):
            continue
        rank = _rank(graph, weight)
        axis = _channel_axis(product, rank)
        if scales[1].ndim and attribute(weight, "axis", 1) % rank != axis:
            continue
        yield BiasedLayer(
            node=node, port=port, product=product, weight=weight, axis=axis, bias=bias, step=scales[0] * scales[1]
        )


def _biased(graph: OnnxGraph, node: onnx.NodeProto) -> tuple[onnx.NodeProto, int] | None:
    """Return the product that a node adds a bias to, and the bias's port; None if the node is nothing of the kind."""
    if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 and node.input[2]:
        return node, 2
    if node.op_type == "Add":
        for port in (0, 1):
            product = graph.producer(node.input[1 - port])
            if (
                product is not None
                and product.op_type == "MatMul"
                and graph.only_consumer(product.output[0]) is node
                and graph.constant(node.input[port]) is not None
            ):
                return product, port
    return None


def _scale(graph: OnnxGraph, node: onnx.NodeProto) -> NDArray[Any] | None:
    scale = graph.constant(node.input[1]) if node.op_type == "DequantizeLinear" else None
    return None if scale is None else np.asarray(scale, dtype=np.float64)


def _rank(graph: OnnxGraph, weight: onnx.NodeProto) -> int:
    integers = graph.constant(weight.input[0])
    # Only a product of two activations has no constant weight, and that has one scale.
    return 2 if integers is None else integers.ndim


def _channel_axis(product: onnx.NodeProto, rank: int) -> int:
    if product.op_type == "Conv":
        return 0
    if product.op_type == "Gemm":
        return 0 if attribute(product, "transB", 0) else 1
    return rank - 1
