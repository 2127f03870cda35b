"""Quantization-aware training: quantizers at the places that the placement found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_nncf.algorithms.quantization.adjustment import WeightAdjustment
from lightning_nncf.algorithms.quantization.config import QuantizationConfig, RangeConfig
from lightning_nncf.algorithms.quantization.placement import place_quantizers
from lightning_nncf.algorithms.quantization.quantizers import Quantizer, build_quantizer
from lightning_nncf.algorithms.quantization.range_init import RangeTask, initialize_ranges
from lightning_nncf.algorithms.quantization.request import placement_settings, places_of, ranges_of
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.calibration import CalibrationData, adapt_batch_norm
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.registry import register
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.graph.graph import NetworkGraph
from lightning_nncf.graph.hooks import HookSite, insert
from lightning_nncf.statistics.quantization import BitsHistogram, CompressedSize, LearnedRange, QuantizedShare

__all__ = ["Quantization"]


@register(QuantizationConfig)
class Quantization(Algorithm):
    """Fake quantization of weights and activations with trainable ranges.

    Args:
        config: Settings of quantization.
        root: The whole configuration.
    """

    name: ClassVar[str] = "quantization"
    priority: ClassVar[int] = 11

    def __init__(self, config: QuantizationConfig, root: NNCFConfig) -> None:
        super().__init__(config, root)
        self.setup = QuantizationSetup(points=())
        self.quantizers: list[Quantizer] = []
        self._sites: list[tuple[HookSite, ...]] = []
        self._ranges: list[RangeConfig] = []
        self._network: nn.Module | None = None
        self._adjustment: WeightAdjustment | None = None

    def build(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Place quantizers on the graph and insert them."""
        setup = place_quantizers(graph, placement_settings(self.config, self.root, network, graph))
        located = [places_of(network, graph, point) for point in setup.points]
        self._ranges = ranges_of(self.config, network, graph, setup.points)
        self._adjustment = WeightAdjustment(self.config.initializer, network, graph, setup)
        self._insert(network, setup, located)

    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None:
        """Insert the quantizers that a checkpoint lists."""
        setup = QuantizationSetup.from_dict(structure["setup"])
        located = [tuple(HookSite.from_dict(site) for site in places) for places in structure["sites"]]
        self._ranges = [RangeConfig.load(values) for values in structure["ranges"]]
        self._insert(network, setup, located)

    def structure(self) -> dict[str, Any]:
        """Return the points with their number formats as they are now, and where they are."""
        points = tuple(
            replace(point, config=quantizer.config)
            for point, quantizer in zip(self.setup.points, self.quantizers, strict=True)
        )
        return {
            "setup": replace(self.setup, points=points).to_dict(),
            "sites": [[site.to_dict() for site in places] for places in self._sites],
            "ranges": [entry.model_dump(mode="json") for entry in self._ranges],
        }

    def initialize(self, network: nn.Module, data: CalibrationData) -> None:
        """Smooth activations, set all ranges, correct biases, then adapt batch norm to the quantized network."""
        if self._adjustment is not None:
            self._adjustment.smooth(self.quantizers, data)
        initialize_ranges(self._tasks(network), data)
        self.activate()
        if self._adjustment is not None:
            self._adjustment.correct(self.quantizers, data)
        adapt_batch_norm(network, data, self.config.initializer.batchnorm_adaptation.num_bn_adaptation_samples)

    def activate(self) -> None:
        """Let all quantizers quantize."""
        for quantizer in self.quantizers:
            quantizer.enabled = True

    @property
    def stage(self) -> CompressionStage:
        """Fully compressed once the quantizers act."""
        active = all(quantizer.enabled for quantizer in self.quantizers)
        return CompressionStage.FULLY_COMPRESSED if active else CompressionStage.UNCOMPRESSED

    def metrics(self) -> dict[str, Metric]:
        """Return metrics of bit widths, share, size and ranges."""
        return {
            "bits": BitsHistogram(),
            "quantized_share": QuantizedShare(),
            "size": CompressedSize(),
            "range": LearnedRange(),
        }

    def observations(self) -> dict[str, Tensor]:
        """Return bit widths per quantizer, bit widths and sizes per parameter, and widths of activation ranges."""
        assert self._network is not None
        parameter_bits = {id(p): 32 for p in self._parameters()}
        for places, quantizer, point in zip(self._sites, self.quantizers, self.setup.points, strict=True):
            if point.kind == "weight":
                for site in places:
                    parameter_bits[id(site.parameter_of(self._network))] = quantizer.config.bits
        widths = [
            (high - low).flatten() for quantizer in self._distinct("activation") for low, high in [quantizer.range()]
        ]
        return {
            "weight_bits": torch.tensor(self._bits("weight"), dtype=torch.long),
            "activation_bits": torch.tensor(self._bits("activation"), dtype=torch.long),
            "parameter_bits": torch.tensor([parameter_bits[id(p)] for p in self._parameters()]),
            "parameter_counts": torch.tensor([p.numel() for p in self._parameters()]),
            "range_widths": torch.cat([width.float().cpu() for width in widths]) if widths else torch.zeros(0),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per quantization point."""
        rows = []
        for point, quantizer in zip(self.setup.points, self.quantizers, strict=True):
            low, high = quantizer.range()
            rows.append(
                {
                    "place": str(point.point),
                    "kind": point.kind,
                    "bits": quantizer.config.bits,
                    "mode": quantizer.config.mode,
                    "granularity": "per channel" if quantizer.config.per_channel else "per tensor",
                    "levels": _levels(quantizer),
                    "low": float(low.min()),
                    "high": float(high.max()),
                }
            )
        return rows

    def summary(self) -> list[str]:
        """Say how many quantizers there are."""
        weights, activations = self.setup.count("weight"), self.setup.count("activation")
        distinct = len(self._distinct("activation"))
        shared = f" ({distinct} distinct)" if distinct != activations else ""
        placed = f"Quantization: {weights} weight and {activations} activation quantizers{shared}"
        return [placed, *([] if self._adjustment is None else self._adjustment.summary())]

    def _insert(self, network: nn.Module, setup: QuantizationSetup, located: Sequence[tuple[HookSite, ...]]) -> None:
        """Build one quantizer per point, one for a whole unified group, and insert them, idle at first."""
        self.setup, self._sites, self._network = setup, list(located), network
        leader = {index: group[0] for group in setup.unified for index in group}
        built: dict[int, Quantizer] = {}
        devices = [parameter.device for parameter in network.parameters()]
        for index, (point, places) in enumerate(zip(setup.points, located, strict=True)):
            key = leader.get(index, index)
            if key not in built:
                # A weight may have become smaller than it was when the point was chosen.
                shape = places[0].parameter_of(network).shape if point.kind == "weight" else point.shape
                quantizer = build_quantizer(point.config, shape, point.channel_axis)
                quantizer.enabled = False
                built[key] = quantizer.to(devices[0]) if devices else quantizer
                self._scale_gradients(built[key])
            self.quantizers.append(built[key])
            for site in places:
                insert(network, site, built[key], algorithm=self.name, priority=self.priority)

    def _scale_gradients(self, quantizer: Quantizer) -> None:
        """Multiply the gradients of a quantizer's parameters by ``compression_lr_multiplier``."""
        own = self.config.compression_lr_multiplier
        factor = self.root.compression_lr_multiplier if own is None else own
        if factor is not None:
            for parameter in quantizer.parameters():
                parameter.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]

    def _tasks(self, network: nn.Module) -> list[RangeTask]:
        """Return one initialization per distinct quantizer."""
        tasks: dict[int, RangeTask] = {}
        for point, places, quantizer, entry in zip(
            self.setup.points, self._sites, self.quantizers, self._ranges, strict=True
        ):
            if id(quantizer) not in tasks:
                tasks[id(quantizer)] = RangeTask(
                    name=str(point.point),
                    quantizer=quantizer,
                    weight=places[0].parameter_of(network) if point.kind == "weight" else None,
                    type=entry.type,  # type: ignore[arg-type]
                    num_samples=entry.num_init_samples,
                )
        return list(tasks.values())

    def _parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the plain network, without those that compression added."""
        assert self._network is not None
        return [p for name, p in self._network.named_parameters() if "lnncf_" not in name]

    def _bits(self, kind: Literal["weight", "activation"]) -> list[int]:
        return [q.config.bits for p, q in zip(self.setup.points, self.quantizers, strict=True) if p.kind == kind]

    def _distinct(self, kind: Literal["weight", "activation"]) -> list[Quantizer]:
        """Return the quantizers of one kind, those of a unified group once."""
        pairs = zip(self.setup.points, self.quantizers, strict=True)
        return list({id(q): q for p, q in pairs if p.kind == kind}.values())


def _levels(quantizer: Quantizer) -> str:
    """Write the integers of a quantizer, unless the data has yet to decide on their sign."""
    undecided = quantizer.config.signed is None and quantizer.config.mode == "symmetric"
    return "set by data" if undecided else f"{quantizer.quant_min}..{quantizer.quant_max}"
