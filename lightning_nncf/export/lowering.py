"""Replacing the markers that an exporter left by the quantizers they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from lightning_nncf.algorithms.binarization.binarizers import ActivationBinarizer, WeightBinarizer
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.errors import ExportError
from lightning_nncf.export.binary import Step, binary_weight
from lightning_nncf.export.formats import Format
from lightning_nncf.export.grid import Grid
from lightning_nncf.export.marker import DOMAIN, OP_TYPE, Marked
from lightning_nncf.export.onnx_graph import OnnxGraph, attribute, nested_graphs

__all__ = ["LoweredQuantizers", "label", "labels_in", "lower"]


@dataclass(frozen=True, kw_only=True)
class LoweredQuantizers:
    """What was written.

    Args:
        weights: Label of each weight quantizer to its bits.
        activations: Label of each activation quantizer to its bits.
    """

    weights: dict[str, int] = field(default_factory=dict)
    activations: dict[str, int] = field(default_factory=dict)


def label(address: str, call: int) -> str:
    """Name one call of a quantizer.

    >>> label("conv.lnncf_weight.quantization", 0), label("relu.lnncf_out.quantization", 2)
    ('conv.lnncf_weight.quantization', 'relu.lnncf_out.quantization@2')
    """
    return f"{address}@{call}" if call else address


def labels_in(graph: OnnxGraph) -> frozenset[str]:
    """Return the labels of all markers of a graph."""
    markers = filter(_is_marker, graph.nodes)
    return frozenset(label(attribute(node, "address"), attribute(node, "call")) for node in markers)


def lower(graph: OnnxGraph, quantizers: Mapping[str, Marked], writer: Format) -> LoweredQuantizers:
    """Write every marker of a graph in an export format.

    A quantizer whose input depends on no input of the model is a weight quantizer, whatever stands between the
    parameter and it (masks, transposes): its integers are computed here.

    Args:
        graph: Graph with markers.
        quantizers: Quantizers by address.
        writer: The export format.

    Returns:
        The quantizers written.

    Raises:
        ExportError: If a marker lies inside a loop or a branch.
    """
    _refuse_nested(graph.nodes)
    ranks = {name: len(kind.shape.dim) for name, kind in graph.shapes().items() if kind.HasField("shape")}
    written = LoweredQuantizers()
    replacements: list[tuple[onnx.NodeProto, list[onnx.NodeProto]]] = []
    stored: dict[str, list[tuple[NDArray[Any], str]]] = {}
    for node in graph.nodes:
        if not _is_marker(node):
            continue
        address = attribute(node, "address")
        name, quantizer = label(address, attribute(node, "call")), quantizers[address]
        source, output = node.input[0], node.output[0]
        weight = graph.constant(source)
        if isinstance(quantizer, ActivationBinarizer):
            new = writer.binary_activation(graph, source, output, Step.of(quantizer), name)
            written.activations[name] = 1
        elif weight is None:
            grid = _activation_grid(quantizer, name)
            new = writer.activation(graph, source, output, grid, name, ranks.get(source, ranks.get(output)))
            written.activations[name] = grid.bits
        elif same := [known for value, known in stored.get(address, ()) if np.array_equal(value, weight)]:
            # A tied weight is stored once.
            new = [helper.make_node("Identity", [same[0]], [output], name=f"{output}/Identity")]
        else:
            versions = stored.setdefault(address, [])
            # A weight that its takers see in different layouts, such as a transposed one, is stored once for each.
            name = f"{name}@{len(versions)}" if name in written.weights else name
            grid, integers = _on_grid(quantizer, weight)
            new = writer.weight(graph, output, grid, integers, name)
            versions.append((weight, output))
            written.weights[name] = grid.bits
        replacements.append((node, new))
    graph.replace_all(replacements)
    _drop_identities(graph)
    _set_domains(graph, writer.domains)
    return written


def _activation_grid(quantizer: Quantizer | WeightBinarizer, name: str) -> Grid:
    if isinstance(quantizer, WeightBinarizer):
        raise ExportError(
            f"the weight of {name!r} is computed from the model's inputs; binary weights must be constant"
        )
    return Grid.of(quantizer)


def _on_grid(quantizer: Marked, weight: NDArray[Any]) -> tuple[Grid, NDArray[Any]]:
    """Return the grid of a weight and its integers."""
    assert not isinstance(quantizer, ActivationBinarizer), "takes no weight"
    if isinstance(quantizer, WeightBinarizer):
        return binary_weight(quantizer, weight)
    grid = Grid.of(quantizer)
    return grid, grid.integers(quantizer, weight)


def _is_marker(node: onnx.NodeProto) -> bool:
    return node.domain == DOMAIN and node.op_type == OP_TYPE


def _refuse_nested(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for body in nested_graphs(node):
            for inner in body.node:
                if _is_marker(inner):
                    raise ExportError(
                        f"the quantizer {attribute(inner, 'address')!r} lies inside a data-dependent loop or branch "
                        f"({node.op_type} {node.name!r}), where runtimes do not run integers; add it to ignored_scopes"
                    )
            _refuse_nested(body.node)


def _drop_identities(graph: OnnxGraph) -> None:
    """Read through the identities that stand for tied weights, so that each consumer sees its DequantizeLinear."""
    for node in [node for node in graph.nodes if node.op_type == "Identity" and node.input[0] not in graph.outputs]:
        if node.output[0] in graph.outputs:
            continue
        producer = graph.producer(node.input[0])
        if producer is not None and producer.op_type in ("DequantizeLinear", "FakeQuantize"):
            for consumer in graph.consumers(node.output[0]):
                for port, name in enumerate(consumer.input):
                    if name == node.output[0]:
                        consumer.input[port] = node.input[0]
            graph.replace(node, [])


def _set_domains(graph: OnnxGraph, domains: Mapping[str, int]) -> None:
    graph.sweep()
    imported = graph.model.opset_import
    kept = {item.domain: item.version for item in imported if item.domain != DOMAIN}
    used = {node.domain for node in graph.nodes}
    merged = {domain: version for domain, version in {**kept, **domains}.items() if domain in used or domain == ""}
    del imported[:]
    imported.extend(helper.make_opsetid(domain, version) for domain, version in merged.items())
