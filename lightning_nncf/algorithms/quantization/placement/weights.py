"""Quantizers of weights: one per parameter that some op multiplies with or looks up."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lightning_nncf.algorithms.quantization.placement.candidates import Candidates, merge_single
from lightning_nncf.algorithms.quantization.placement.flow import Flow
from lightning_nncf.algorithms.quantization.placement.hardware import HardwareTable
from lightning_nncf.algorithms.quantization.placement.operators import LINEAR, operator_of
from lightning_nncf.algorithms.quantization.placement.settings import Constraints, PlacementSettings
from lightning_nncf.algorithms.quantization.placement.traits import conflict
from lightning_nncf.algorithms.quantization.placement.weight_source import Reading, Weight
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.errors import PlacementError
from lightning_nncf.graph.graph import INPUT, InsertionPoint

_log = logging.getLogger(__name__)

__all__ = ["WeightQuantizer", "finished", "first_convolutions", "weight_quantizers"]


@dataclass(frozen=True, kw_only=True)
class WeightQuantizer:
    """The quantizer of one parameter.

    Args:
        weight: The parameter, at the first op that takes it.
        candidates: Formats allowed by all ops that take it.
        ops: Addresses of these ops.
        multiplies: Whether one of them multiplies and accumulates; looking up rows does not.
    """

    weight: Weight
    candidates: Candidates
    ops: tuple[str, ...]
    multiplies: bool


def weight_quantizers(flow: Flow, table: HardwareTable, settings: PlacementSettings) -> dict[str, WeightQuantizer]:
    """Return the quantizers of all weights by parameter name; shared modules and tied weights have one.

    Raises:
        PlacementError: The constraints leave no format for some weight; the first along the data flow is named.
    """
    found: dict[str, WeightQuantizer] = {}
    for address, weights in flow.weights.items():
        operator = operator_of(flow.ops[address])
        if not settings.covers(address, "weight") or not table.quantizes_weight(operator):
            continue
        constraints = settings.constraints(address, "weight")
        candidates = table.weights(operator, constraints)
        if not candidates:
            allowed = table.weights(operator, Constraints())
            raise conflict(address, "weight", settings.target_device, allowed, constraints)
        for weight in weights:
            if not settings.accepts(InsertionPoint(kind="weight", address=weight.address, port=weight.port)):
                continue
            new = WeightQuantizer(weight=weight, candidates=candidates, ops=(address,), multiplies=operator in LINEAR)
            found[weight.name] = _shared(found[weight.name], new) if weight.name in found else new
    axes = _channel_axes(flow)
    return {name: _along(quantizer, axes.get(name, {})) for name, quantizer in found.items()}


def _channel_axes(flow: Flow) -> dict[str, dict[str, int | None]]:
    """Return, by parameter and address of the op, the axis of the channels in every product with a parameter.

    Products in full precision count, too: with one range per entry of the axis that they sum over, runtimes compute
    them wrongly without a sign.
    """
    axes: dict[str, dict[str, int | None]] = {}
    for address, op in flow.ops.items():
        if operator_of(op) != "Embedding":
            takings: tuple[Weight | Reading, ...] = (*flow.weights.get(address, ()), *flow.readings.get(address, ()))
            for taken in takings:
                axes.setdefault(taken.name, {})[address] = taken.channel_axis
    return axes


def _along(quantizer: WeightQuantizer, axes: Mapping[str, int | None]) -> WeightQuantizer:
    """Return the quantizer of a parameter with its channels along the axis of all products, or without channels.

    A table that is also multiplied with has the channels of the product: a row can be looked up along any axis.

    Raises:
        PlacementError: The products have channels along different axes, but the settings want a range for each.
    """
    distinct = set(axes.values())
    if not distinct or all(not config.per_channel for config in quantizer.candidates):
        return quantizer
    if len(distinct) == 1 and None not in distinct:
        (axis,) = distinct
        assert axis is not None
        return replace(quantizer, weight=replace(quantizer.weight, channel_axis=axis))
    per_tensor = tuple(config for config in quantizer.candidates if not config.per_channel)
    readers = ", ".join(map(repr, axes))
    if not per_tensor:
        raise PlacementError(
            f"the weight {quantizer.weight.name!r} cannot have a range per channel: {readers} read it along "
            "different or unknown axes. Allow `per_channel: false` there, or name the ops that take it as their weight "
            "in `ignored_scopes`"
        )
    _log.warning(
        "the weight %r has one range instead of one per channel: %s read it along different or unknown axes",
        quantizer.weight.name,
        readers,
    )
    return replace(quantizer, candidates=per_tensor)


def _shared(present: WeightQuantizer, other: WeightQuantizer) -> WeightQuantizer:
    """Return the quantizer of a parameter that another op takes, too.

    Raises:
        PlacementError: The ops have no format in common.
    """
    candidates = merge_single([present.candidates, other.candidates])
    if not candidates:
        raise PlacementError(
            f"the weight {present.weight.name!r} is shared by {', '.join(map(repr, (*present.ops, *other.ops)))}, "
            "whose settings leave no format for all of them; give them the same, or name all in `ignored_scopes`"
        )
    return WeightQuantizer(
        weight=present.weight,
        candidates=candidates,
        ops=(*present.ops, *other.ops),
        multiplies=present.multiplies or other.multiplies,
    )


def first_convolutions(flow: Flow) -> frozenset[str]:
    """Return the convolutions that no other convolution comes before on the way from an input of the network."""
    reached = {address for address, op in flow.ops.items() if op.function == INPUT}
    first: set[str] = set()
    for address in flow.ops:
        if any(edge.source in reached and edge.source not in first for edge in flow.inputs[address]):
            reached.add(address)
            if operator_of(flow.ops[address]) in ("Convolution", "DepthWiseConvolution"):
                first.add(address)
    return frozenset(first)


def finished(
    quantizer: WeightQuantizer, table: HardwareTable, settings: PlacementSettings, first: frozenset[str]
) -> QuantizerConfig:
    """Return the best format of a weight with its range adapted: half where products may overflow, else narrow.

    Only 8-bit formats are adapted.
    """
    config = quantizer.candidates[0]
    if config.bits != 8:
        return config
    wanted: Mapping[str, bool] = {
        "enable": True,
        "disable": False,
        "first_layer_only": not first.isdisjoint(quantizer.ops),
    }
    halves = table.saturates and quantizer.multiplies and wanted[settings.overflow_fix]
    return replace(config, half_range=halves, narrow_range=not halves)
