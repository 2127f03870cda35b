"""Names of nodes, weights, inputs and outputs, without two tensors of one name."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import onnx

from lightning_nncf.export.onnx_graph import nested_graphs

__all__ = ["name_ends", "name_layers", "placeholders"]

_WRAPPER = "network"
_SCOPES = "pkg.torch.onnx.name_scopes"


def placeholders(kind: str, count: int) -> list[str]:
    """Return names for inputs or outputs that no tensor of an exporter has.

    >>> placeholders("input", 2)
    ['lightning_nncf::input_0', 'lightning_nncf::input_1']
    """
    return [f"lightning_nncf::{kind}_{index}" for index in range(count)]


def name_ends(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give inputs and outputs their names in the place of their `placeholders`, in place.

    Exporters name the tensors between after operators (``mean``, ``relu``) and do not look whether an input or an
    output is called so. Here what lies between makes way.

    Args:
        model: Model as exported.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
    """
    renamed = dict(zip(placeholders("input", len(inputs)), inputs, strict=True))
    renamed |= zip(placeholders("output", len(outputs)), outputs, strict=True)
    taken, wanted = set(_tensors(model.graph)), set(renamed.values())
    for name in sorted(taken & wanted):
        unique, count = f"{name}.inner", 1
        while unique in taken | wanted:
            unique, count = f"{name}.inner{count}", count + 1
        renamed[name] = unique
        taken.add(unique)
    _rename(model.graph, renamed)


def name_layers(model: onnx.ModelProto) -> None:
    """Name nodes and initializers after the modules of the network, in place.

    Nodes get ``layer1.0.conv1/Conv``; the prefix of the wrapper that was exported goes from the initializers, unless
    what is left names another tensor: exporters name tensors after operators and after keys of inputs and outputs.
    """
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        scope = _scope(node)
        if scope is None:
            node.name = node.name.replace(f"/{_WRAPPER}/", "/", 1)
            continue
        name = f"{scope}/{node.op_type}"
        node.name = f"{name}_{counts[name]}" if counts[name] else name
        counts[name] += 1
    taken = set(_tensors(model.graph))
    renamed = {
        tensor.name: short
        for tensor in model.graph.initializer
        if tensor.name.startswith(f"{_WRAPPER}.") and (short := tensor.name.removeprefix(f"{_WRAPPER}.")) not in taken
    }
    _rename(model.graph, renamed)


def _tensors(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of all tensors of a graph, those inside its loops and branches too."""
    for items in (graph.input, graph.output, graph.initializer):
        yield from (item.name for item in items)
    for node in graph.node:
        yield from node.output
        for body in nested_graphs(node):
            yield from _tensors(body)


def _scope(node: onnx.NodeProto) -> str | None:
    """Return the module path of a node written by the dynamo exporter, None for others."""
    for item in node.metadata_props:
        if item.key == _SCOPES:
            scopes = [scope for scope in ast.literal_eval(item.value)[:-1] if scope.startswith(f"{_WRAPPER}.")]
            return str(scopes[-1]).removeprefix(f"{_WRAPPER}.") if scopes else ""
    return None


def _rename(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    for items in (graph.input, graph.output, graph.initializer, graph.value_info):
        for item in items:
            item.name = renamed.get(item.name, item.name)
    for node in graph.node:
        for names in (node.input, node.output):
            for port, name in enumerate(names):
                if name in renamed:
                    names[port] = renamed[name]
        for body in nested_graphs(node):
            _rename(body, renamed)
