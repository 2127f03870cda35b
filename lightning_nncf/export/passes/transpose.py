"""Transposing quantized weights once, at export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from lightning_nncf.export.onnx_graph import OnnxGraph, attribute, rewired

__all__ = ["fold_transposes"]


def fold_transposes(graph: OnnxGraph) -> int:
    """Move a Transpose of a dequantized constant into its integers.

    Exporters write a linear layer as MatMul with a transposed weight; runtimes look for the DequantizeLinear right
    before the MatMul. A weight that is also read as it is, as the table of an embedding tied to the layer, is stored
    once: its integers are transposed by a node, which runtimes compute while they load the file. OpenVINO runs no layer
    on integers behind such a node, so the node goes to the others, if these only look rows up.

    Args:
        graph: Graph with ``DequantizeLinear`` weights.

    Returns:
        How many were moved.
    """
    replacements: list[tuple[onnx.NodeProto, list[onnx.NodeProto]]] = []
    readers: Counter[str] = Counter()
    turned: dict[tuple[str, tuple[int, ...]], str] = {}
    for node in graph.nodes:
        source = graph.producer(node.input[0]) if node.op_type == "Transpose" else None
        if source is None or source.op_type != "DequantizeLinear":
            continue
        integers, scale = graph.constant(source.input[0]), graph.constant(source.input[1])
        if integers is None or scale is None:
            continue
        order = list(attribute(node, "perm", range(integers.ndim)[::-1]))
        name = source.name.removesuffix("/DequantizeLinear")
        key, new = (source.input[0], tuple(order)), []
        if key not in turned and _is_looked_up_too(graph, source, order):
            turned[key] = graph.add_constant(f"{name}/transposed_integers", np.transpose(integers, order))
            replacements.append((source, _turned_back(source, turned[key], order)))
        elif key not in turned and _read_as_it_is(graph, source):
            turned[key] = f"{name}/transposed_integers"
            new = [
                helper.make_node(
                    "Transpose", [key[0]], [turned[key]], name=f"{name}/Transpose_{len(turned)}", perm=order
                )
            ]
        elif key not in turned:
            turned[key] = graph.add_constant(f"{name}/transposed_integers", np.transpose(integers, order))
        alone = graph.only_consumer(source.output[0]) is node
        unique = source.name if alone else f"{source.name}_{readers[source.name]}"
        readers[source.name] += 1
        axis: dict[str, Any] = {"axis": order.index(attribute(source, "axis", 1) % integers.ndim)} if scale.ndim else {}
        new.append(
            helper.make_node(
                "DequantizeLinear", [turned[key], *source.input[1:]], [node.output[0]], name=unique, **axis
            )
        )
        replacements.append((node, new))
    graph.replace_all(replacements)
    return len(replacements)


def _is_looked_up_too(graph: OnnxGraph, source: onnx.NodeProto, order: Sequence[int]) -> bool:
    """Whether whatever takes a weight transposes it in the same way or gathers rows of it, and both are there."""
    takers = graph.consumers(source.output[0])
    kinds = {taker.op_type for taker in takers}
    orders = [list(attribute(taker, "perm", order)) for taker in takers if taker.op_type == "Transpose"]
    return kinds == {"Transpose", "Gather"} and all(each == list(order) for each in orders) and len(order) == 2


def _turned_back(source: onnx.NodeProto, integers: str, order: Sequence[int]) -> list[onnx.NodeProto]:
    """Return what replaces a DequantizeLinear whose integers are stored transposed."""
    name = source.name.removesuffix("/DequantizeLinear")
    reader = rewired(source, inputs={0: f"{name}/integers_in_rows"})
    back = [int(axis) for axis in np.argsort(order)]
    turn = helper.make_node("Transpose", [integers], [reader.input[0]], name=f"{name}/Transpose", perm=back)
    return [turn, reader]


def _read_as_it_is(graph: OnnxGraph, source: onnx.NodeProto) -> bool:
    """Whether something else than a Transpose takes a weight."""
    name = source.output[0]
    return name in graph.outputs or any(node.op_type != "Transpose" for node in graph.consumers(name))
