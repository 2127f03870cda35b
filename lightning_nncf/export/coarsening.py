"""Coarser weights in channels whose bias would not fit the integers that a runtime adds it as.

A runtime adds the bias to int32 sums, in steps of the input's scale times the weight's. A channel that training has
switched off, by a batch norm's factor next to zero, has a minute scale, and its bias takes more of those steps than 32
bits hold: ONNX Runtime (1.32) adds what is left of it after the overflow. Half the integers under twice the scale stand
for nearly the same weight, whose part in the output is too small to see beside such a bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from lightning_nncf.export.biased_layers import BiasedLayer, biased_layers
from lightning_nncf.export.onnx_graph import OnnxGraph
from lightning_nncf.export.widening import NARROW

__all__ = ["coarsen_weights"]

_LARGEST = 2**30
"""Largest integer of a bias; the other half of int32 is left to the products, which fill it from 33,000 of them on."""
_WIDEST = 2**6
"""What steps are divided by at most when narrow weights are widened afterwards."""


def coarsen_weights(model: onnx.ModelProto) -> int:
    """Double the scales of weights until the biases of their channels fit, in place.

    Args:
        model: Model with ``DequantizeLinear`` inputs and weights.

    Returns:
        How many layers have coarser weights than their quantizers gave them.
    """
    graph = OnnxGraph(model)
    replacements: list[tuple[onnx.NodeProto, list[onnx.NodeProto]]] = []
    for found in biased_layers(graph):
        integers = graph.constant(found.weight.input[0])
        if integers is None:
            continue
        narrow = np.abs(integers.astype(np.int64)).max(initial=0) <= NARROW
        room = _LARGEST // _WIDEST if narrow else _LARGEST
        steps = np.abs(found.bias.astype(np.float64)) / found.step
        doublings = np.ceil(np.log2(np.maximum(steps / room, 1.0)))
        if doublings.any():
            replacements.append((found.product, _coarser(graph, found, integers, 2.0**doublings)))
    graph.replace_all(replacements)
    graph.close()
    return len(replacements)


def _coarser(
    graph: OnnxGraph, found: BiasedLayer, integers: NDArray[Any], factors: NDArray[Any]
) -> list[onnx.NodeProto]:
    """Return a product with a weight of its own, each channel's scale multiplied by a factor."""
    node, dtype = found.weight, integers.dtype
    label = node.name.removesuffix("/DequantizeLinear")
    zero_point = np.asarray(graph.constant(node.input[2])) if len(node.input) > 2 else np.zeros((), dtype)
    points = np.broadcast_to(zero_point, factors.shape)
    scale = np.broadcast_to(np.asarray(graph.constant(node.input[1]), np.float64), factors.shape) * factors
    shape = [-1 if dim == found.axis else 1 for dim in range(integers.ndim)]
    spread = points.reshape(shape).astype(np.int64)
    coarse = np.rint((integers.astype(np.int64) - spread) / factors.reshape(shape)).astype(np.int64) + spread
    weight = f"{label}/{found.node.name or found.node.output[0]}/coarse"
    inputs = [
        graph.add_constant(f"{label}/coarse_integers", coarse.astype(dtype)),
        graph.add_constant(f"{label}/coarse_scale", scale.astype(np.float32)),
        graph.add_constant(f"{label}/coarse_zero_point", points),
    ]
    product = onnx.NodeProto()
    product.CopyFrom(found.product)
    product.input[1] = weight
    dequantize = helper.make_node(
        "DequantizeLinear", inputs, [weight], name=f"{weight}/DequantizeLinear", axis=found.axis
    )
    return [dequantize, product]
