"""Factors of several signs before a quantizer, as those of a layer scale that training has turned.

Measured with OpenVINO 2026.4 (ONNX Runtime is right): a product with one constant per channel goes into the quantizer
behind it, whose lower and upper ends change places where the constant is negative; these channels are then wrong. A
factor for the whole tensor is right, and so is a product that something which cannot be merged stands behind.
"""

from __future__ import annotations

import onnx

from lightning_nncf.export.onnx_graph import OnnxGraph, rewired
from lightning_nncf.export.passes.sources import reaches_quantizer, shield

__all__ = ["shield_negative_factors"]

_FACTORS = {"Mul": (0, 1), "Div": (1,), "BatchNormalization": (1,)}
"""Op to the inputs that may be its factors."""


def shield_negative_factors(graph: OnnxGraph) -> int:
    """Keep products with negative constants of several elements out of the quantizers behind them.

    Args:
        graph: Graph with quantizers.

    Returns:
        How many products have a shield behind them.
    """
    replacements: list[tuple[onnx.NodeProto, list[onnx.NodeProto]]] = []
    for node in graph.nodes:
        if not _turns_signs(graph, node) or not reaches_quantizer(graph, node.output[0]):
            continue
        name, bare = node.name or node.output[0], rewired(node, outputs={0: f"{node.output[0]}/product"})
        replacements.append((node, [bare, shield(graph, bare.output[0], node.output[0], name)]))
    graph.replace_all(replacements)
    return len(replacements)


def _turns_signs(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    """Whether a node multiplies a float tensor by a constant of several elements, some of which are negative."""
    constants = [graph.constant(node.input[port]) for port in _FACTORS.get(node.op_type, ())]
    return any(
        value is not None and value.dtype.kind == "f" and value.size > 1 and (value < 0).any() for value in constants
    )
