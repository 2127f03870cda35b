"""The part of a captured graph that is deployed: its ops in data-flow order and the tensors between them."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass

from lightning_nncf.algorithms.quantization.placement.operators import (
    LINEAR,
    activation_ports,
    canonical,
    operator_of,
    weight_ports,
)
from lightning_nncf.algorithms.quantization.placement.weight_source import Reading, Weight, find_readings, find_weights
from lightning_nncf.graph.graph import INPUT, OUTPUT, Edge, NetworkGraph, OpNode

__all__ = ["Flow", "Tensor", "deployed_flow"]

Tensor = tuple[str, int]
"""A tensor by the address of the op that makes it and its place among that op's outputs."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Ops and edges that take part in placement.

    Args:
        ops: Ops by address, producers before consumers.
        inputs: Edges that arrive at an op, by port.
        outputs: Edges that leave an op.
        weights: The parameters that are weights of each op, by address; ops without any are left out.
        readings: Parameters that an op multiplies with after their values were moved, by address; they may be the
            weights of other ops.
        weighted: Ops with a weight: a parameter or computed from parameters.
        live: Tensors that carry activations: floating point, computed from an input of the network or by an op
            with a weight, not from integers or constants alone.
        learned: Floating point tensors that are not live but computed from parameters.
        behind: Ops that follow an op with a weight or that have one.
        before: Ops whose result reaches an op with a weight, or that have one.
        useful: Ops whose result reaches an output of the network or an op with a weight.
    """

    ops: Mapping[str, OpNode]
    inputs: Mapping[str, Sequence[Edge]]
    outputs: Mapping[str, Sequence[Edge]]
    weights: Mapping[str, tuple[Weight, ...]]
    readings: Mapping[str, tuple[Reading, ...]]
    weighted: frozenset[str]
    live: frozenset[Tensor]
    learned: frozenset[Tensor]
    behind: frozenset[str]
    before: frozenset[str]
    useful: frozenset[str]

    def carries(self, edge: Edge) -> bool:
        """Whether an edge brings activations to a port that takes them."""
        return _carries(self.ops, self.live, edge)

    def computes_weight(self, edge: Edge, quantized: Collection[str]) -> bool:
        """Whether an edge brings a weight that is computed from parameters, as weight normalization does.

        Args:
            edge: The edge.
            quantized: Names of parameters that are quantized wherever they are read; nothing is left to do for them.
        """
        if any(found.port == edge.port and found.name in quantized for found in self.readings.get(edge.target, ())):
            return False
        return edge.target not in self.weights and _brings_weight(self.ops, self.learned, edge)

    def activations_into(self, address: str) -> list[Edge]:
        """Return the edges that bring activations to an op."""
        return [edge for edge in self.inputs[address] if self.carries(edge)]


def _ordered(ops: Mapping[str, OpNode], edges: Sequence[Edge]) -> list[str]:
    """Sort addresses along the data flow, ties and cycles by the order in which they were first seen."""
    seen = {address: index for index, address in enumerate(ops)}
    names = list(ops)
    waiting = [0] * len(names)
    consumers: dict[int, list[int]] = defaultdict(list)
    for source, target in dict.fromkeys((seen[edge.source], seen[edge.target]) for edge in edges):
        if source != target:
            waiting[target] += 1
            consumers[source].append(target)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    done: set[int] = set()
    result: list[str] = []
    while len(result) < len(names):
        if not ready:  # The union of several calls made a cycle: go on with the op seen first.
            ready = [next(index for index in range(len(names)) if index not in done)]
        index = heapq.heappop(ready)
        if index in done:
            continue
        done.add(index)
        result.append(names[index])
        for target in consumers[index]:
            waiting[target] -= 1
            if waiting[target] == 0 and target not in done:
                heapq.heappush(ready, target)
    return result


def _carries(ops: Mapping[str, OpNode], live: Set[Tensor], edge: Edge) -> bool:
    if not edge.tensor.is_floating_point:
        return False
    return (edge.source, edge.output) in live and edge.port in activation_ports(ops[edge.target])


def _brings_weight(ops: Mapping[str, OpNode], learned: Set[Tensor], edge: Edge) -> bool:
    op = ops[edge.target]
    is_learned = (edge.source, edge.output) in learned
    return is_learned and operator_of(op) in LINEAR and edge.port in weight_ports(op)


def _multiplies_parameters(op: OpNode, learned: Set[Tensor], arriving: Sequence[Edge]) -> bool:
    """Whether an op multiplies nothing but parameters, on the way to a weight: as a rotation or low ranks do."""
    from_parameters = {edge.port for edge in arriving if (edge.source, edge.output) in learned} | set(op.parameters)
    return canonical(op.function) in ("matmul", "mm", "bmm") and from_parameters == set(range(len(op.inputs)))


def deployed_flow(graph: NetworkGraph) -> Flow:
    """Return the flow of the ops seen in eval mode, of all ops where none was."""
    every = {op.address: op for op in graph.ops()}
    chosen = {address: op for address, op in every.items() if "eval" in op.modes} or every
    edges = [edge for address in chosen for edge in graph.outputs_of(address) if edge.target in chosen]
    order = _ordered(chosen, edges)
    position = {address: index for index, address in enumerate(order)}
    inputs: dict[str, list[Edge]] = {address: [] for address in order}
    outputs: dict[str, list[Edge]] = {address: [] for address in order}
    for edge in edges:
        if position[edge.source] < position[edge.target]:
            outputs[edge.source].append(edge)
            inputs[edge.target].append(edge)
    for arriving in inputs.values():
        arriving.sort(key=lambda edge: (edge.port, position[edge.source], edge.output))

    weights = {}
    readings = {}
    weighted: set[str] = set()
    live: set[Tensor] = set()
    learned: set[Tensor] = set()
    behind: set[str] = set()
    for address in order:
        op = chosen[address]
        computes = _multiplies_parameters(op, learned, inputs[address])
        own = () if computes else find_weights(op, chosen, inputs)
        if own:
            weights[address] = own
        elif moved := find_readings(op, chosen, inputs):
            readings[address] = moved
        if own or (not computes and any(_brings_weight(chosen, learned, edge) for edge in inputs[address])):
            weighted.add(address)
        arriving = [edge for edge in inputs[address] if _carries(chosen, live, edge)]
        if address in weighted or any(edge.source in behind for edge in arriving):
            behind.add(address)
        made = {(address, index) for index, info in enumerate(op.outputs) if info.is_floating_point}
        if op.function == INPUT or address in weighted or arriving:
            live |= made
        elif op.parameters or any((edge.source, edge.output) in learned for edge in inputs[address]):
            learned |= made

    before: set[str] = set()
    useful: set[str] = set()
    ends = any(op.function == OUTPUT for op in chosen.values())
    for address in reversed(order):
        op = chosen[address]
        reaches = any(edge.target in before and _carries(chosen, live, edge) for edge in outputs[address])
        if reaches or address in weights or operator_of(op) in LINEAR:
            before.add(address)
        if not ends or address in before or op.function == OUTPUT or any(e.target in useful for e in outputs[address]):
            useful.add(address)
    return Flow(
        ops={address: chosen[address] for address in order},
        inputs=inputs,
        outputs=outputs,
        weights=weights,
        readings=readings,
        weighted=frozenset(weighted),
        learned=frozenset(learned),
        live=frozenset(live),
        behind=frozenset(behind),
        before=frozenset(before),
        useful=frozenset(useful),
    )
