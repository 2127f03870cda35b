"""Average pooling in the form that both runtimes compute rightly beside quantizers.

Measured with ONNX Runtime 1.18 to 1.32 and OpenVINO 2026.4:

* OpenVINO counts padding as the integer 0, not as the zero point, so that each padded zero stands for another number.
* With windows that overhang (``ceil_mode``) and padding that counts, OpenVINO divides by other numbers than torch, in
  float too, and ONNX Runtime does on integers, even without padding.

Zeros that are padded before, and quantized with the rest, are right everywhere and keep integers. Where the values are
no integers there, an op between keeps OpenVINO from merging padding and pool again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute, rewired
from lightning_nncf.export.passes.sources import (
    MOVING,
    SCALING,
    is_activation_dequantize,
    pads_with_zeros,
    quantized_source,
    shield,
)

__all__ = ["rewrite_average_pools"]

_SHIFTING = frozenset({"Add", "Sub"})


def rewrite_average_pools(graph: OnnxGraph) -> int:
    """Write average pools whose padding counts so that every runtime computes them rightly.

    Args:
        graph: Graph with ``QuantizeLinear`` and ``DequantizeLinear``.

    Returns:
        How many were written anew.
    """
    replacements = []
    for node in graph.nodes:
        if node.op_type == "AveragePool" and attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID"):
            new = _rewritten(graph, node)
            if new:
                replacements.append((node, new))
    graph.replace_all(replacements)
    return len(replacements)


def _rewritten(graph: OnnxGraph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    name, source = node.name or node.output[0], node.input[0]
    counted = bool(attribute(node, "count_include_pad", 0))
    widths = list(attribute(node, "pads", ()))
    widths = widths if counted and any(widths) else []
    before = graph.producer(source)
    padded_before = before is not None and before.op_type == "Pad"
    overhangs = bool(attribute(node, "ceil_mode", 0))
    if (widths or padded_before) and (overhangs or _has_zero_point(graph, source)):
        # Over requantized zeros OpenVINO is wrong in one dimension, behind a convolution.
        plain = len(attribute(node, "kernel_shape", ())) == 2 and not overhangs
        grid = _grid(graph, source) if plain else None
        new, pooled = _padded(graph, source, widths, grid, name)
    elif counted and overhangs and not widths:
        new, pooled = [], source
    else:
        return []
    done_before = ("count_include_pad", "pads") if widths else ("count_include_pad",)
    kept = [item for item in node.attribute if item.name not in done_before]
    return [*new, rewired(node, inputs={0: pooled}, attributes=kept)]


def _has_zero_point(graph: OnnxGraph, name: str) -> bool:
    """Whether a tensor comes from integers around another one than 0, or from such that were shifted."""
    node = quantized_source(graph, name, MOVING | SCALING | _SHIFTING)
    if node is None:
        return False
    if quantized_source(graph, name, MOVING | SCALING) is None:
        return True
    # Of a FakeQuantize, the low end of its range.
    offset = node.input[1 if node.op_type == "FakeQuantize" else 2] if len(node.input) > 2 else None
    return offset is not None and bool(np.any(graph.constant(offset)))


def _padded(
    graph: OnnxGraph, source: str, widths: Sequence[int], grid: Sequence[str] | None, name: str
) -> tuple[list[onnx.NodeProto], str]:
    """Return nodes that pad a tensor with zeros and keep them apart from the pool, and their result."""
    new = []
    if widths:
        half = len(widths) // 2
        pads = np.array([0, 0, *widths[:half], 0, 0, *widths[half:]], np.int64)
        sizes = graph.add_constant(f"{name}/pads", pads)
        new.append(helper.make_node("Pad", [source, sizes], [f"{name}/padded"], name=f"{name}/Pad"))
        source = f"{name}/padded"
    if grid is None:
        new.append(shield(graph, source, f"{name}/shielded", name))
    else:
        new += [
            helper.make_node("QuantizeLinear", [source, *grid], [f"{name}/requantized"], name=f"{name}/QuantizeLinear"),
            helper.make_node(
                "DequantizeLinear", [f"{name}/requantized", *grid], [f"{name}/on_grid"], name=f"{name}/DequantizeLinear"
            ),
        ]
    return new, new[-1].output[0]


def _grid(graph: OnnxGraph, name: str) -> Sequence[str] | None:
    """Return the scale and zero point of a tensor that lies on one grid with the zeros around it, else None."""
    node = graph.producer(name)
    if node is not None and pads_with_zeros(graph, node):
        node = graph.producer(node.input[0])
    if node is None or node.op_type != "DequantizeLinear" or not is_activation_dequantize(graph, node):
        return None
    scale = graph.constant(node.input[1])
    return node.input[1:3] if len(node.input) > 2 and scale is not None and scale.ndim == 0 else None
