"""The quantizers of a network at their places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from lightning_nncf.algorithms.quantization.config import QuantizationConfig, RangeConfig
from lightning_nncf.algorithms.quantization.initialization.range_init import RangeTask
from lightning_nncf.algorithms.quantization.learning import RangeLearning
from lightning_nncf.algorithms.quantization.quantizers import Quantizer, build_quantizer
from lightning_nncf.algorithms.quantization.setup import PointKind, QuantizationPoint, QuantizationSetup
from lightning_nncf.hooks.insertion import HookSite, insert

__all__ = ["InsertedQuantizers"]

_MEANS = ("mean_min_max", "mixed_min_max")


class InsertedQuantizers:
    """Quantizers inserted into a network, idle at first.

    All sequences have one entry per point of the setup; the points of a unified group have the same quantizer.

    Args:
        network: The network to insert into.
        setup: The points.
        sites: The places of each point in the network.
        ranges: The range initialization of each point.
        config: Settings of quantization.
        multiplier: Factor on the gradients of ranges.
        algorithm: Name of the algorithm that inserts.
        priority: Its order at one place.
    """

    def __init__(
        self,
        network: nn.Module,
        setup: QuantizationSetup,
        sites: Sequence[tuple[HookSite, ...]],
        ranges: Sequence[RangeConfig],
        config: QuantizationConfig,
        *,
        multiplier: float,
        algorithm: str,
        priority: int,
    ) -> None:
        self.network = network
        self.setup = setup
        self.sites = list(sites)
        self.ranges = list(ranges)
        self.quantizers: list[Quantizer] = []
        leader = {index: group[0] for group in setup.unified for index in group}
        built: dict[int, Quantizer] = {}
        devices = [parameter.device for parameter in network.parameters()]
        for index, (point, places) in enumerate(zip(setup.points, self.sites, strict=True)):
            key = leader.get(index, index)
            if key not in built:
                # A weight may have become smaller than it was when the point was chosen.
                shape = places[0].parameter_of(network).shape if point.kind == "weight" else point.shape
                learning = _learning(point, shape, config, multiplier)
                floor = config.initializer.range_floor
                quantizer = build_quantizer(point.config, shape, point.channel_axis, learning, floor=floor)
                quantizer.enabled = False
                built[key] = quantizer.to(devices[0]) if devices else quantizer
            self.quantizers.append(built[key])
            for site in places:
                insert(network, site, built[key], algorithm=algorithm, priority=priority)

    @classmethod
    def restore(
        cls,
        network: nn.Module,
        structure: Mapping[str, Any],
        config: QuantizationConfig,
        *,
        multiplier: float,
        algorithm: str,
        priority: int,
    ) -> InsertedQuantizers:
        """Insert the quantizers that `structure` listed."""
        return cls(
            network,
            QuantizationSetup.from_dict(structure["setup"]),
            [tuple(HookSite.from_dict(site) for site in places) for places in structure["sites"]],
            [RangeConfig.load(values) for values in structure["ranges"]],
            config,
            multiplier=multiplier,
            algorithm=algorithm,
            priority=priority,
        )

    def structure(self) -> dict[str, Any]:
        """Return the points with their number formats as they are now, and where they are."""
        points = tuple(
            replace(point, config=quantizer.config, shape=_present_shape(point, quantizer))
            for point, quantizer in zip(self.setup.points, self.quantizers, strict=True)
        )
        return {
            "setup": replace(self.setup, points=points).to_dict(),
            "sites": [[site.to_dict() for site in places] for places in self.sites],
            "ranges": [entry.model_dump(mode="json") for entry in self.ranges],
        }

    def of_kind(self, *kinds: PointKind) -> list[Quantizer]:
        """Return the distinct quantizers of weights or of activations, in the order of their points."""
        pairs = zip(self.setup.points, self.quantizers, strict=True)
        return list({id(quantizer): quantizer for point, quantizer in pairs if point.kind in kinds}.values())

    def enabled(self, kind: PointKind) -> bool:
        """Whether all quantizers of weights or of activations quantize."""
        return all(quantizer.enabled for quantizer in self.of_kind(kind))

    def enable(self, kind: PointKind, *, enabled: bool = True) -> None:
        """Let the quantizers of weights or of activations quantize, or pass their input."""
        for quantizer in self.of_kind(kind):
            quantizer.enabled = enabled

    def range_tasks(self, *kinds: PointKind) -> list[RangeTask]:
        """Return one initialization per distinct quantizer; those of other kinds keep their range."""
        tasks: dict[int, RangeTask] = {}
        for point, places, quantizer, entry in zip(
            self.setup.points, self.sites, self.quantizers, self.ranges, strict=True
        ):
            if id(quantizer) not in tasks:
                tasks[id(quantizer)] = RangeTask(
                    name=str(point.point),
                    quantizer=quantizer,
                    weight=places[0].parameter_of(self.network) if point.kind == "weight" else None,
                    # A weight is one sample: its first axis is no batch to take means over.
                    type="min_max" if point.computed and entry.type in _MEANS else entry.type,
                    percentiles=(entry.params.min_percentile, entry.params.max_percentile),
                    num_samples=entry.num_init_samples if point.kind in kinds else 0,
                )
        return list(tasks.values())


def _present_shape(point: QuantizationPoint, quantizer: Quantizer) -> tuple[int, ...]:
    """Return the shape of the tensors at a point with the channels that are left once filters are removed."""
    axis = quantizer.axis
    return point.shape if axis < 0 else (*point.shape[:axis], quantizer.shape[axis], *point.shape[axis + 1 :])


def _learning(
    point: QuantizationPoint, shape: Sequence[int], config: QuantizationConfig, multiplier: float
) -> RangeLearning:
    """Say how the range of the quantizer at a point learns."""
    group = config.weights if point.kind == "weight" else config.activations
    # activations: the gradient of a mean loss does not grow with the batch
    values = math.prod(shape if point.kind == "weight" else shape[1:])
    if point.config.per_channel:
        values //= shape[point.channel_axis]
    return RangeLearning(
        logarithm=group.logarithm_scale,
        multiplier=multiplier,
        lsq_values=max(values, 1) if config.gradient == "lsq" else None,
    )
