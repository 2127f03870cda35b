"""FLOPs and parameters of the layers, as a function of how much of each weight is left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from lightning_nncf.graph.graph import NetworkGraph, OpNode

__all__ = ["Cost", "LayerCost", "layer_costs", "positions_of", "total"]

_RANKS = {f"{name}{n}d": n for name in ("conv", "conv_transpose") for n in (1, 2, 3)}
Kept = Callable[[str, int], int]
"""Returns how many entries are left along one dimension of a parameter."""


@dataclass(frozen=True)
class Cost:
    """FLOPs of one sample, two per multiplication and addition, and parameters without biases.

    >>> Cost(4, 2) + Cost(1, 1)
    Cost(flops=5, parameters=3)
    """

    flops: int
    parameters: int

    def __add__(self, other: Cost) -> Cost:
        """Add both."""
        return Cost(self.flops + other.flops, self.parameters + other.parameters)


@dataclass(frozen=True)
class LayerCost:
    """What the cost of one call of a layer depends on.

    Args:
        address: Address of the op.
        weight: Name of the weight.
        shape: Its full shape.
        positions: At how many positions of a sample the weight is used; its rows on average.
    """

    address: str
    weight: str
    shape: tuple[int, ...]
    positions: float

    def cost(self, kept: Kept | None = None) -> Cost:
        """Return the cost with what is left of the weight; default: all of it.

        >>> LayerCost("conv/conv2d:0", "conv.weight", (8, 3, 3, 3), 100).cost()
        Cost(flops=43200, parameters=216)
        >>> LayerCost("fc/linear:0", "fc.weight", (8, 4), 1).cost(lambda name, dim: 2)
        Cost(flops=8, parameters=4)
        """
        first, second = (self.shape[dim] if kept is None else kept(self.weight, dim) for dim in (0, 1))
        parameters = first * second * prod(self.shape[2:])
        return Cost(round(2 * parameters * self.positions), parameters)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {**vars(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LayerCost:
        """Read `to_dict`."""
        return cls(**{**values, "shape": tuple(values["shape"])})


def layer_costs(graph: NetworkGraph) -> list[LayerCost]:
    """Return all convolutions and linear layers that run in evaluation, or at all if nothing ran in it.

    Attention's products of activations cost nothing here, as in NNCF; neither do biases and normalizations. Its
    projections count as the linear layers they are.
    """
    ops = [op for op in graph.ops() if positions_of(op)]
    if any("eval" in op.modes for op in graph.ops()):
        ops = [op for op in ops if "eval" in op.modes]
    return [
        LayerCost(op.address, op.parameters[port], op.inputs[port].shape, positions)
        for op in ops
        for port, positions in positions_of(op).items()
    ]


def positions_of(op: OpNode) -> dict[int, float]:
    """Return for each port of an op with the weight of a layer at how many positions of a sample it is used."""
    if op.function == "linear" and 1 in op.parameters:
        # Inside of attention, tokens come before samples.
        inside = "inside" in op.attributes
        return {1: prod(op.outputs[0].shape[:1] if inside else op.outputs[0].shape[1:-1])}
    if op.function in _RANKS and 1 in op.parameters:
        # A transposed convolution uses its weight once per position of its input.
        seen = op.inputs[0] if op.function.startswith("conv_transpose") else op.outputs[0]
        return {1: prod(seen.shape[-_RANKS[op.function] :])}
    if op.function == "multi_head_attention_forward":
        queries, keys = op.inputs[0].shape[0], op.inputs[1].shape[0]
        # One weight that projects queries, keys and values alike is used as often as its thirds on average.
        tokens = {"in_proj_weight": (queries + 2 * keys) / 3, "k_proj_weight": keys, "v_proj_weight": keys}
        weights = {
            port: name.rpartition(".")[2] for port, name in op.parameters.items() if len(op.inputs[port].shape) == 2
        }
        return {port: tokens.get(name, queries) for port, name in weights.items()}
    return {}


def total(costs: Iterable[LayerCost], kept: Kept | None = None) -> Cost:
    """Add up all layers; a weight that is used several times counts once among the parameters.

    >>> layer = LayerCost("fc/linear:0", "fc.weight", (8, 4), 1)
    >>> total([layer, layer])
    Cost(flops=128, parameters=32)
    """
    result, seen = Cost(0, 0), set[str]()
    for layer in costs:
        cost = layer.cost(kept)
        result += Cost(cost.flops, 0 if layer.weight in seen else cost.parameters)
        seen.add(layer.weight)
    return result
