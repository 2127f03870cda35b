"""From a captured graph and the user's settings to the places and formats of all quantizers."""

from __future__ import annotations

import logging
from dataclasses import replace

from lightning_nncf.algorithms.quantization.placement.candidates import settle
from lightning_nncf.algorithms.quantization.placement.flow import deployed_flow
from lightning_nncf.algorithms.quantization.placement.fusing import fuse
from lightning_nncf.algorithms.quantization.placement.hardware import hardware_table
from lightning_nncf.algorithms.quantization.placement.placed import (
    activation_points,
    assemble,
    quantizes_input,
    weight_point,
)
from lightning_nncf.algorithms.quantization.placement.propagation import Group, Propagation
from lightning_nncf.algorithms.quantization.placement.settings import PlacementSettings
from lightning_nncf.algorithms.quantization.placement.sharing import share_scales
from lightning_nncf.algorithms.quantization.placement.traits import assign_traits
from lightning_nncf.algorithms.quantization.placement.weights import finished, first_convolutions, weight_quantizers
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.graph.graph import NetworkGraph

__all__ = ["place_quantizers"]

_log = logging.getLogger(__name__)


def place_quantizers(graph: NetworkGraph, settings: PlacementSettings | None = None) -> QuantizationSetup:
    """Decide where quantizers go and which formats they have.

    The same graph and settings always give the same setup. The graph is only read.

    Args:
        graph: Captured graph of the network.
        settings: What the user asks for; the defaults serve CPUs.

    Raises:
        PlacementError: The constraints leave no format at some place; the first along the data flow is named.
        ConfigError: The target device has no hardware table.
        ScopeError: Ops that should share a scale have no activation quantizers.
    """
    settings = settings or PlacementSettings()
    table = hardware_table(settings.target_device)
    flow = deployed_flow(graph)
    units = fuse(flow)
    behaviours = assign_traits(units, table, settings)
    weights = weight_quantizers(flow, table, settings)
    looked_up = {
        quantizer.ops[0]: quantizer.candidates
        for quantizer in weights.values()
        if not quantizer.multiplies and len(quantizer.ops) == 1
    }
    propagation = Propagation(units, behaviours, settings, looked_up, weights).run()
    share_scales(propagation, settings.unified, validate=settings.validate)
    for name, quantizer in weights.items():
        if quantizer.ops[0] in propagation.absorbed:
            candidates, served = propagation.absorbed[quantizer.ops[0]]
            weights[name] = replace(quantizer, candidates=candidates, ops=(*quantizer.ops, *served))

    groups = []
    for group in propagation.groups:
        if not settings.quantize_inputs and all(quantizes_input(flow, member) for member in group.members):
            continue
        config = _chosen(group)
        groups.append([point for member in group.members for point in activation_points(flow, member, config)])
        _log_homeless(group)
    first = first_convolutions(flow)
    points = [weight_point(quantizer, finished(quantizer, table, settings, first)) for quantizer in weights.values()]
    return assemble(flow, points, groups)


def _chosen(group: Group) -> QuantizerConfig:
    """Return the best format of a group that may follow the formats chosen upstream."""
    candidates = group.candidates
    for member in group.members:
        if member.base is not None:
            candidates = settle(candidates, (_chosen(member.base.current().group),))
    return candidates[0]


def _log_homeless(group: Group) -> None:
    for member in group.members:
        if not member.homes:
            _log.warning("no module can be inserted where the inputs of %s could be quantized", ", ".join(member.ops))
