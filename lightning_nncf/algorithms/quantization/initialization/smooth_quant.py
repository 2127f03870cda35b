"""SmoothQuant: large values are moved from the channels of an activation into the weights behind it.

Where a few channels of an activation are much larger than the rest, one range for all of them leaves the others few
levels. Dividing each channel by a factor, and multiplying the weights that take the channel by it, changes nothing in
float and evens the channels out (Xiao et al. 2023, "SmoothQuant", equation 4). The division costs nothing: it goes into
the weight and bias of the norm, or the rows of the linear layer, that the activation comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nncf.algorithms.quantization.initialization.range_init import bypassed
from lightning_nncf.algorithms.quantization.placement.operators import canonical
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.calibration import CalibrationData, run
from lightning_nncf.graph.graph import NetworkGraph, OpNode

__all__ = ["SmoothGroup", "smooth", "smooth_groups", "smoothing_factors"]

_SOURCES = frozenset({"layer_norm", "rms_norm", "linear", "mul"})
"""Ops whose result a factor per channel can be taken out of; `mul` by a vector is how many norms are spelled."""
_PASSING = frozenset(
    {"relu", "dropout", "identity", "contiguous", "clone", "alias", "detach", "to", "type_as", "float"}
)
"""Ops that commute with a positive factor per channel."""
_RESHAPING = frozenset({"view", "reshape", "flatten", "unsqueeze", "squeeze"})
"""Ops that do as long as the last axis, that of the channels, keeps its size."""


@dataclass(frozen=True, kw_only=True)
class SmoothGroup:
    """An activation, where it comes from, and the linear layers that alone take it.

    Args:
        source: Address of the op that it comes from.
        divided: Parameters whose first axis is its channels, to be divided.
        layers: Paths of the modules of the linear layers.
        multiplied: Their weights, ``[out, in]``, to be multiplied along the second axis.
    """

    source: str
    divided: tuple[str, ...]
    layers: tuple[str, ...]
    multiplied: tuple[str, ...]


def smooth_groups(network: nn.Module, graph: NetworkGraph, setup: QuantizationSetup) -> list[SmoothGroup]:
    """Find the activations that can be smoothed.

    Args:
        network: The network.
        graph: Its captured graph.
        setup: The quantization points; at least one layer of a group has a quantized weight.
    """
    weighted = {address for point in setup.points if point.kind == "weight" for address in point.ops}
    takers: dict[str, set[str]] = {}
    for op in graph.ops():
        for name in op.parameters.values():
            takers.setdefault(name, set()).add(op.address)
    groups = []
    for op in graph.ops():
        divided = _divided(op)
        linears = _linears(graph, op) if divided else None
        if not linears or not any(linear.address in weighted for linear in linears):
            continue
        modules = [network.get_submodule(linear.module) for linear in linears]
        if not all(isinstance(module, nn.Linear) for module in modules):
            continue
        group = SmoothGroup(
            source=op.address,
            divided=divided,
            layers=tuple(dict.fromkeys(linear.module for linear in linears)),
            multiplied=tuple(dict.fromkeys(linear.parameters[1] for linear in linears)),
        )
        inside = {op.address, *(linear.address for linear in linears)}
        if all(takers[name] <= inside for name in (*group.divided, *group.multiplied)):
            groups.append(group)
    return groups


def smooth(
    network: nn.Module,
    groups: Sequence[SmoothGroup],
    quantizers: Sequence[Quantizer],
    data: CalibrationData,
    *,
    alpha: float,
    num_samples: int,
) -> None:
    """Smooth activations, in evaluation mode and with all quantizers bypassed; the float network computes the same.

    In several processes the largest values are taken over the samples of all, so that all get the same weights.

    Args:
        network: The network.
        groups: What to smooth.
        quantizers: All quantizers.
        data: The data, whose `forward` must call this network.
        alpha: How much of the range goes into the weights, from 0 to 1.
        num_samples: Samples to look at, per process.
    """
    if not groups:
        return
    parameters = dict(network.named_parameters(remove_duplicate=False))
    largest = [_Largest(len(parameters[group.divided[0]])) for group in groups]
    with ExitStack() as stack:
        stack.enter_context(bypassed(quantizers))
        for group, values in zip(groups, largest, strict=True):
            handle = network.get_submodule(group.layers[0]).register_forward_pre_hook(values.hook)
            stack.callback(handle.remove)
        run(data, num_samples, "SmoothQuant")
    activations = torch.cat([values.largest for values in largest])
    if data.reduce is not None:
        activations = data.reduce(activations, "max")
    for group, activation in zip(groups, torch.split(activations, [len(v.largest) for v in largest]), strict=True):
        _apply(group, parameters, activation, alpha)


def smoothing_factors(activation: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """Return what to divide each channel of an activation by, ``activation^alpha / weight^(1 - alpha)``.

    Args:
        activation: ``[C]`` largest magnitudes of the channels.
        weight: ``[C]`` largest magnitudes of the weights that take each channel.
        alpha: 0 evens out the weights, 1 the activation.

    Returns:
        ``[C]`` factors; 1 where a channel or its weights are zero.

    >>> smoothing_factors(torch.tensor([16.0, 1.0, 0.0]), torch.tensor([1.0, 4.0, 1.0]), 0.5)
    tensor([4.0000, 0.5000, 1.0000])
    """
    factors = activation.pow(alpha) / weight.pow(1 - alpha)
    usable = (activation > 0) & (weight > 0) & torch.isfinite(factors)
    return torch.where(usable, factors, torch.ones_like(factors))


class _Largest:
    """Largest magnitude of each channel of what a layer takes."""

    def __init__(self, channels: int) -> None:
        self.largest = torch.zeros(channels, dtype=torch.float64)

    def hook(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        values = inputs[0].detach().flatten(0, -2)
        if values.numel():
            self.largest = torch.maximum(self.largest, values.abs().amax(0).double().cpu())


def _apply(group: SmoothGroup, parameters: Mapping[str, nn.Parameter], activation: Tensor, alpha: float) -> None:
    weights = [parameters[name] for name in group.multiplied]
    weight = torch.stack([weight.detach().abs().amax(0).double().cpu() for weight in weights]).amax(0)
    factors = smoothing_factors(activation, weight, alpha)
    with torch.no_grad():
        for name in group.divided:
            value = parameters[name]
            value.copy_(value.double() / factors.to(value.device).reshape(-1, *[1] * (value.ndim - 1)))
        for value in weights:
            value.copy_(value.double() * factors.to(value.device))


def _divided(op: OpNode) -> tuple[str, ...]:
    """Return the parameters that scale the result of an op, none where it cannot be scaled through them."""
    function = canonical(op.function)
    if function not in _SOURCES or len(op.outputs) != 1 or len(op.inputs) != len(op.parameters) + 1:
        return ()
    channels = op.outputs[0].shape[-1:]
    rank = 2 if function == "linear" else 1
    ranks = {}
    for port, name in op.parameters.items():
        shape = op.inputs[port].shape
        if shape[:1] != channels or len(shape) not in (1, rank):
            return ()
        ranks[name] = 0 if name.rpartition(".")[2] == "bias" else len(shape)
    # A bias alone scales nothing.
    return tuple(ranks) if rank in ranks.values() else ()


def _linears(graph: NetworkGraph, op: OpNode) -> list[OpNode] | None:
    """Return the linear layers that alone take the result of an op, None if something else takes it too."""
    found: dict[str, OpNode] = {}
    waiting = [op]
    while waiting:
        for edge in graph.outputs_of(waiting.pop().address):
            taker = graph[edge.target]
            name = canonical(taker.function)
            if name == "linear" and edge.port == 0 and 1 in taker.parameters:
                found[taker.address] = taker
            elif name in _PASSING or (name in _RESHAPING and _keeps_last(taker)):
                waiting.append(taker)
            else:
                return None
    return list(found.values())


def _keeps_last(op: OpNode) -> bool:
    before, after = op.inputs[0].shape, op.outputs[0].shape if op.outputs else ()
    return bool(before) and bool(after) and before[-1] == after[-1]
