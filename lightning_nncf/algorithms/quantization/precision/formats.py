"""Which number formats each quantizer may have on the target device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_nncf.algorithms.quantization.placement.candidates import Candidates, merge_single
from lightning_nncf.algorithms.quantization.placement.flow import deployed_flow
from lightning_nncf.algorithms.quantization.placement.hardware import HardwareTable, hardware_table
from lightning_nncf.algorithms.quantization.placement.operators import operator_of
from lightning_nncf.algorithms.quantization.placement.settings import GroupSettings, PlacementSettings
from lightning_nncf.algorithms.quantization.placement.weights import finished, first_convolutions, weight_quantizers
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.setup import QuantizationPoint, QuantizationSetup
from lightning_nncf.graph.graph import NetworkGraph

__all__ = ["BITS", "allowed_formats", "with_bits"]

BITS = range(2, 9)
"""Bit widths that quantizers know."""


def allowed_formats(graph: NetworkGraph, settings: PlacementSettings, setup: QuantizationSetup) -> list[Candidates]:
    """Return for each point the formats that the device computes in there, whatever bit width the groups ask for.

    Points that share a quantizer have the same formats. Formats of 8-bit weights use the part of their range that
    `overflow_fix` says.
    """
    table = hardware_table(settings.target_device)
    settings = replace(settings, weights=_any_bits(settings.weights), activations=_any_bits(settings.activations))
    flow = deployed_flow(graph)
    weights = {(w.weight.address, w.weight.port): w for w in weight_quantizers(flow, table, settings).values()}
    first = first_convolutions(flow)
    found: list[Candidates] = []
    for point in setup.points:
        if point.kind == "activation":
            lists = [
                table.activations(operator_of(flow.ops[op]), settings.constraints(op, "activation")) for op in point.ops
            ]
            found.append(_free(table, merge_single(lists)) if lists else (point.config,))
        else:
            quantizer = weights[point.point.address, point.point.port]
            found.append(
                tuple(
                    finished(replace(quantizer, candidates=(config,)), table, settings, first)
                    for config in _free(table, quantizer.candidates)
                )
            )
    for group in setup.unified:
        shared = merge_single([found[index] for index in group])
        for index in group:
            found[index] = shared
    return found


def with_bits(point: QuantizationPoint, formats: Sequence[QuantizerConfig], bits: int) -> QuantizerConfig | None:
    """Return the format of a bit width that is most like the one that a point has, or nothing.

    The mode counts most, then the granularity, then the order of the formats.
    """
    config = point.config
    same = [each for each in formats if each.bits == bits]
    return min(same, key=lambda each: (each.mode != config.mode, each.per_channel != config.per_channel), default=None)


def _any_bits(group: GroupSettings) -> GroupSettings:
    return replace(group, constraints=replace(group.constraints, bits=None))


def _free(table: HardwareTable, candidates: Candidates) -> Candidates:
    """Return the candidates with every bit width, where the device leaves the choice."""
    if not table.is_free:
        return candidates
    return tuple(replace(config, bits=bits) for config in candidates for bits in reversed(BITS))
