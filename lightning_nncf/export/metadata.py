"""What a file says about itself, and what it must not say about the machine that wrote it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import onnx
import torch

from lightning_nncf.export.lowering import LoweredQuantizers
from lightning_nncf.export.onnx_graph import nested_graphs

__all__ = ["PREFIX", "bits_summary", "clean", "own_version", "read_metadata", "write_metadata"]

PREFIX = "lightning_nncf."


def own_version() -> str:
    """Return the version of lightning_nncf, ``unknown`` when it is not installed."""
    try:
        return version("lightning_nncf")
    except PackageNotFoundError:
        return "unknown"


def bits_summary(quantizers: LoweredQuantizers) -> dict[str, dict[str, int]]:
    """Count quantizers by bits.

    >>> bits_summary(LoweredQuantizers(weights={"conv": 8, "fc": 4}, activations={"relu": 8}))
    {'weights': {'4': 1, '8': 1}, 'activations': {'8': 1}}
    """
    return {
        kind: {str(bits): count for bits, count in sorted(Counter(found.values()).items())}
        for kind, found in (("weights", quantizers.weights), ("activations", quantizers.activations))
    }


def clean(model: onnx.ModelProto) -> None:
    """Remove everything an exporter noted for debugging: stack traces hold paths of the machine."""
    del model.metadata_props[:]
    model.doc_string = ""
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        _clean_nodes(function.node)
    _clean_graph(model.graph)


def _clean_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for field in (graph.value_info, graph.input, graph.output, graph.initializer):
        for item in field:
            item.doc_string = ""
            del item.metadata_props[:]
    _clean_nodes(graph.node)


def _clean_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for body in nested_graphs(node):
            _clean_graph(body)


def write_metadata(model: onnx.ModelProto, values: Mapping[str, Any]) -> None:
    """Write entries with our prefix; anything but a string is written as JSON.

    Args:
        model: The model, changed in place.
        values: Entries without the prefix, such as ``config``.
    """
    entries = {"version": own_version(), "torch": torch.__version__, **values}
    present = {item.key: item for item in model.metadata_props}
    for key, value in sorted(entries.items()):
        name = key if key.startswith(PREFIX) else PREFIX + key
        item = present.get(name) or model.metadata_props.add()
        item.key, item.value = name, value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def read_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Return our entries without the prefix, all as text."""
    return {item.key.removeprefix(PREFIX): item.value for item in model.metadata_props if item.key.startswith(PREFIX)}
