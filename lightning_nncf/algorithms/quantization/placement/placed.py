"""Quantization points made from quantizers that found their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lightning_nncf.algorithms.quantization.placement.flow import Flow, Tensor
from lightning_nncf.algorithms.quantization.placement.operators import operator_of
from lightning_nncf.algorithms.quantization.placement.propagation import Quantizer
from lightning_nncf.algorithms.quantization.placement.weights import WeightQuantizer
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.setup import QuantizationPoint, QuantizationSetup
from lightning_nncf.graph.graph import INPUT, InsertionPoint

__all__ = ["activation_points", "assemble", "quantizes_input", "weight_point"]

_LAST_AXIS = frozenset({"MatMul", "MVN", "ScaledDotProductAttention"})


def weight_point(quantizer: WeightQuantizer, config: QuantizerConfig) -> QuantizationPoint:
    """Return the point of a weight quantizer."""
    weight = quantizer.weight
    return QuantizationPoint(
        kind="weight",
        point=InsertionPoint(kind="weight", address=weight.address, port=weight.port),
        config=config,
        shape=weight.shape,
        channel_axis=weight.channel_axis,
        ops=quantizer.ops,
    )


def _shape(flow: Flow, point: InsertionPoint) -> tuple[int, ...]:
    op = flow.ops[point.address]
    return (op.outputs if point.kind == "output" else op.inputs)[point.port].shape


def _tensor(flow: Flow, point: InsertionPoint) -> Tensor | None:
    """Return the tensor at a point, ``None`` if no op makes it."""
    if point.kind == "output":
        return point.address, point.port
    edges = (edge for edge in flow.inputs[point.address] if edge.port == point.port)
    return next(((edge.source, edge.output) for edge in edges), None)


def activation_points(flow: Flow, quantizer: Quantizer, config: QuantizerConfig) -> list[QuantizationPoint]:
    """Return the points of an activation quantizer, one for each of its homes.

    Channels are on axis 1, or on the last axis where matrix products take the tensor.
    """
    points = []
    for home in quantizer.homes:
        shape = _shape(flow, home)
        is_last = operator_of(flow.ops[quantizer.ops[0]]) in _LAST_AXIS
        points.append(
            QuantizationPoint(
                kind="activation",
                point=home,
                config=config,
                shape=shape,
                channel_axis=max(len(shape) - 1, 0) if is_last else min(1, max(len(shape) - 1, 0)),
                ops=quantizer.ops,
                computed=_tensor(flow, home) in flow.learned,
            )
        )
    return points


def quantizes_input(flow: Flow, quantizer: Quantizer) -> bool:
    """Whether a quantizer stands at an input of the network, ops that only move values left aside."""

    def is_input(address: str) -> bool:
        op = flow.ops[address]
        if op.function == INPUT:
            return True
        sources = {edge.source for edge in flow.activations_into(address)}
        return operator_of(op) == "Agnostic" and bool(sources) and all(is_input(source) for source in sources)

    return all(
        is_input(home.address)
        if home.kind == "output"
        else all(is_input(edge.source) for edge in flow.inputs[home.address] if edge.port == home.port)
        for home in quantizer.homes
    )


def _without_repeats(
    flow: Flow, points: Sequence[QuantizationPoint], partners: Mapping[InsertionPoint, frozenset[InsertionPoint]]
) -> list[QuantizationPoint]:
    """Drop points that repeat the quantization of their tensor, handing their ops to the point upstream.

    A point that shares its scale with others stays, unless the point upstream is one of them.
    """
    by_place = {point.point: index for index, point in enumerate(points) if point.kind == "activation"}
    result = list(points)
    dropped: set[int] = set()

    def upstream(point: InsertionPoint) -> int | None:
        """Return the nearest point above, through ops with one input that only move values."""
        address = point.address
        if point.kind == "output":
            arriving = flow.activations_into(address)
            if operator_of(flow.ops[address]) != "Agnostic" or len(arriving) != 1:
                return None
            above = InsertionPoint(kind="input", address=address, port=arriving[0].port)
        else:
            edge = next(edge for edge in flow.inputs[address] if edge.port == point.port)
            above = InsertionPoint(kind="output", address=edge.source, port=edge.output)
        found = by_place.get(above)
        return found if found is not None else upstream(above)

    for index, point in enumerate(points):
        if point.kind == "weight" or point.config.per_channel:
            continue
        above = upstream(point.point)
        if above is None or result[above].config != point.config:
            continue
        shared = partners[point.point]
        if len(shared) == 1 or points[above].point in shared:
            dropped.add(index)
            while above in dropped:
                above = upstream(result[above].point)
                assert above is not None
            result[above] = replace(result[above], ops=tuple(dict.fromkeys((*result[above].ops, *point.ops))))
    return [point for index, point in enumerate(result) if index not in dropped]


def _components(items: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Join groups of ids that overlap."""
    root: dict[int, int] = {}

    def find(item: int) -> int:
        while root.setdefault(item, item) != item:
            item = root[item]
        return item

    for group in items:
        for item in group:
            low, high = sorted((find(group[0]), find(item)))
            root[high] = low
    joined: dict[int, list[int]] = {}
    for item in sorted(root):
        joined.setdefault(find(item), []).append(item)
    return [tuple(group) for _, group in sorted(joined.items()) if len(group) > 1]


def assemble(
    flow: Flow, weights: Sequence[QuantizationPoint], groups: Sequence[Sequence[QuantizationPoint]]
) -> QuantizationSetup:
    """Number the points along the data flow and write down which of them belong together.

    Args:
        flow: The flow.
        weights: Points of weights.
        groups: Points of activations; those of one group share their quantizer.
    """
    position = {address: index for index, address in enumerate(flow.ops)}
    kinds = {"input": 0, "weight": 1, "output": 2}

    def order(point: QuantizationPoint) -> tuple[int, int, int]:
        return position[point.point.address], kinds[point.point.kind], point.point.port

    activations = [point for group in groups for point in group]
    partners = {point.point: frozenset(other.point for other in group) for group in groups for point in group}
    points = _without_repeats(flow, sorted((*weights, *activations), key=order), partners)
    number = {point.point: index for index, point in enumerate(points)}
    unified = [
        tuple(sorted(number[point.point] for point in group if point.point in number))
        for group in groups
        if group and not group[0].config.per_channel
    ]
    by_op: dict[str, list[int]] = {}
    for index, point in enumerate(points):
        for op in point.ops:
            by_op.setdefault(op, []).append(index)
    return QuantizationSetup(
        points=tuple(points),
        unified=tuple(sorted(group for group in unified if len(group) > 1)),
        adjacent=tuple(_components([tuple(group) for group in by_op.values()])),
    )
