"""Follows removed channels through a captured graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx
from torch import nn

from lightning_nncf.dependencies.labels import Entries, Ids
from lightning_nncf.dependencies.places import channels_by_place
from lightning_nncf.dependencies.rules import RULES
from lightning_nncf.dependencies.splits import settle_splits
from lightning_nncf.dependencies.values import WHOLE, Call, Limits, Records, Value
from lightning_nncf.graph.graph import INPUT, OUTPUT, Edge, NetworkGraph, OpNode

__all__ = ["Dependencies", "propagate"]


@dataclass(frozen=True)
class Dependencies:
    """What depends on what.

    Args:
        entries: Entries of parameters with their equalities and vetoes.
        records: Roles of dimensions and attributes that follow them.
        channels: For each place between layers, see `places`, the axis of its channels and the entries along it.
    """

    entries: Entries
    records: Records
    channels: Mapping[str, tuple[int, Ids]]


def propagate(graph: NetworkGraph, network: nn.Module, limits: Limits | None = None) -> Dependencies:
    """Number the channels that every layer produces, and follow them to whoever reads them.

    Args:
        graph: The captured graph.
        network: Its network, for names of buffers and attributes.
        limits: Where to stop.
    """
    entries, records = Entries(), Records()
    modules = dict(network.named_modules())
    limits = limits or Limits()
    values: dict[tuple[str, int], Value] = {}
    arrived: dict[tuple[str, int], Value] = {}
    for address in _order(graph):
        op = graph[address]
        call = Call(op, _arriving(graph, op, values, entries), entries, records, modules, limits)
        arrived.update({(address, port): value for port, value in enumerate(call.values)})
        for output, value in enumerate(_apply(call)):
            values[address, output] = value
    settle_splits(entries, records, modules)
    return Dependencies(entries, records, channels_by_place(graph, arrived, values))


def _order(graph: NetworkGraph) -> list[str]:
    """Return the ops, producers first; loops in the graph leave the order of the trace."""
    position = {op.address: index for index, op in enumerate(graph.ops())}
    try:
        return list(nx.lexicographical_topological_sort(graph.graph, key=position.__getitem__))
    except nx.NetworkXUnfeasible:
        return list(position)


def _arriving(graph: NetworkGraph, op: OpNode, values: dict[tuple[str, int], Value], entries: Entries) -> list[Value]:
    """Return the value at each input port; where several tensors arrive in turn they lose the same entries."""
    arrived: dict[int, list[tuple[Edge, Value]]] = {}
    for edge in graph.inputs_of(op.address):
        arrived.setdefault(edge.port, []).append((edge, values.get((edge.source, edge.output), WHOLE)))
    found = []
    for port, info in enumerate(op.inputs):
        pairs = arrived.get(port, [])
        fitting = [value for edge, value in pairs if value.ids is not None and value.ids.ndim == len(info.shape)]
        shapes = {value.ids.shape for value in fitting if value.ids is not None}
        if len(fitting) < len(pairs) or len(shapes) > 1 or not fitting:
            for _, value in pairs:
                if value.ids is not None:
                    entries.freeze(value.ids, "also a tensor that stays whole arrives here", op.address)
            found.append(WHOLE)
            continue
        first = fitting[0]
        for value in fitting[1:]:
            assert first.ids is not None
            assert value.ids is not None
            entries.unite(first.ids, value.ids)
        found.append(Value(first.ids, zero=all(value.zero for value in fitting)))
    return found


def _apply(call: Call) -> list[Value]:
    """Ask the rule of an op for the values it returns."""
    op = call.op
    outputs = max(len(op.outputs), 1)
    if op.function == INPUT:
        return [WHOLE] * outputs
    if op.function == OUTPUT:
        return call.freeze_all("output of the network")
    # What a function of PyTorch calls has sizes that the function is told.
    whole = op.attributes.get("inside")
    rule = RULES.get(op.function)
    if whole or rule is None:
        return call.freeze_all(f"`{whole or op.function}` is not understood")
    found = [_checked(value, info.shape) for value, info in zip(rule(call), op.outputs, strict=False)]
    return found + [WHOLE] * (outputs - len(found))


def _checked(value: Value, shape: tuple[int, ...]) -> Value:
    """Refuse entries that do not fit the shape of their tensor: a rule misread its op."""
    if value.ids is not None:
        fits = value.ids.ndim == len(shape) and all(a in (1, b) for a, b in zip(value.ids.shape, shape, strict=True))
        assert fits, f"entries of shape {value.ids.shape} for a tensor of shape {shape}"
    return value
