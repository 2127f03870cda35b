"""Signed integers before the layers that OpenVINO runs on integers only around the zero point 0.

Activations are written as uint8, signed ones around 128, because ONNX Runtime takes one type in and out of a
convolution. OpenVINO (2024.6 to 2026.4) then computes transposed convolutions, and products of two activations whose
first factor is such a tensor, in float. A second quantizer with the same scale around 0 changes no value and gives them
int8.
"""

from __future__ import annotations

import numpy as np
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph, rewired
from lightning_nncf.export.passes.sources import is_activation_dequantize

__all__ = ["sign_activations"]

_MIDDLE = 128


def sign_activations(graph: OnnxGraph) -> int:
    """Quantize signed activations to int8 before transposed convolutions and products of activations.

    Args:
        graph: Graph with ``DequantizeLinear`` inputs and weights.

    Returns:
        How many layers have a signed input now.
    """
    replacements = []
    for node in graph.nodes:
        before = graph.producer(node.input[0]) if node.op_type in ("ConvTranspose", "MatMul") else None
        other = graph.producer(node.input[1]) if before is not None else None
        if before is None or other is None or other.op_type != "DequantizeLinear":
            continue
        if not is_activation_dequantize(graph, before) or len(before.input) < 3:
            continue
        if (node.op_type == "MatMul") != is_activation_dequantize(graph, other):
            continue
        zero_point = graph.constant(before.input[2])
        if zero_point is None or zero_point.ndim or zero_point.dtype != np.uint8 or int(zero_point) != _MIDDLE:
            continue
        name = f"{node.name or node.output[0]}/signed"
        grid = (before.input[1], graph.add_constant(f"{name}/zero_point", np.array(0, np.int8)))
        signed = f"{name}/dequantized"
        new = [
            helper.make_node(
                "QuantizeLinear", [node.input[0], *grid], [f"{name}/integers"], name=f"{name}/QuantizeLinear"
            ),
            helper.make_node(
                "DequantizeLinear", [f"{name}/integers", *grid], [signed], name=f"{name}/DequantizeLinear"
            ),
        ]
        replacements.append((node, [*new, rewired(node, inputs={0: signed})]))
    graph.replace_all(replacements)
    return len(replacements)
