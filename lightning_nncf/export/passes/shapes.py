"""Dimensions read in a way that leaves OpenVINO's convolutions alone.

Measured with OpenVINO 2026.4 (ONNX Runtime is right): of two places that read the same open dimension, it takes one
for both, and that may be the shape of a convolution ahead of its bias, which its reader of ONNX files looks at. The
bias then no longer goes into the convolution but into the quantizer behind it, which adds the bias of the first channel
to all of them. A dimension that was negated twice is not recognized as the same.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute

__all__ = ["hide_dimensions"]

_QUANTIZERS = frozenset({"QuantizeLinear", "FakeQuantize"})
_ALL = np.iinfo(np.int32).max


def hide_dimensions(graph: OnnxGraph) -> int:
    """Negate twice what every ``Shape`` gives, where the bias of a convolution is quantized right behind it.

    Args:
        graph: Graph with quantizers.

    Returns:
        How many shapes were written anew.
    """
    if not any(_is_endangered(graph, node) for node in graph.nodes):
        return 0
    replacements = [(node, _negated_twice(graph, node)) for node in graph.nodes if node.op_type == "Shape"]
    graph.replace_all(replacements)
    return len(replacements)


def _is_endangered(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    """Whether a node is a convolution with a bias before a quantizer, or before a sum or a clip that may join it."""
    if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3 or not node.input[2]:
        return False
    near = graph.consumers(node.output[0])
    joined = [reader for step in near if step.op_type in ("Add", "Clip") for reader in graph.consumers(step.output[0])]
    return any(reader.op_type in _QUANTIZERS for reader in (*near, *joined))


def _negated_twice(graph: OnnxGraph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return nodes that give what a ``Shape`` gives; a part of it is cut out of the whole only afterwards."""
    name, output = node.name or node.output[0], node.output[0]
    ends = [attribute(node, "start", 0), attribute(node, "end", _ALL)]
    whole = output if ends == [0, _ALL] else f"{name}/whole"
    chain = [f"{name}/shape", f"{name}/negative", whole]
    nodes = [
        helper.make_node(kind, [before], [after], name=f"{after}/{kind}")
        for kind, before, after in zip(("Shape", "Neg", "Neg"), [node.input[0], *chain], chain, strict=False)
    ]
    if whole != output:
        limits = [
            graph.add_constant(f"{name}/{word}", np.array([end], np.int64))
            for word, end in zip(("start", "end"), ends, strict=True)
        ]
        nodes.append(helper.make_node("Slice", [whole, *limits], [output], name=f"{name}/Slice"))
    return nodes
