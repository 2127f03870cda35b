"""Quantization-aware training: quantizers at the places that the placement found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics import Metric

from lightning_nncf.algorithms.quantization.config import QuantizationConfig
from lightning_nncf.algorithms.quantization.description import observe, rows, summary
from lightning_nncf.algorithms.quantization.inserted import InsertedQuantizers
from lightning_nncf.algorithms.quantization.placement import place_quantizers
from lightning_nncf.algorithms.quantization.range_init import initialize_ranges
from lightning_nncf.algorithms.quantization.request import placement_settings, places_of, ranges_of
from lightning_nncf.calibration import CalibrationData, adapt_batch_norm
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.registry import register
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.graph.graph import NetworkGraph
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
    inserted: InsertedQuantizers

    def __init__(self, config: QuantizationConfig, root: NNCFConfig) -> None:
        super().__init__(config, root)

    def build(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Place quantizers on the graph and insert them."""
        setup = place_quantizers(graph, placement_settings(self.config, self.root, network, graph))
        self.inserted = InsertedQuantizers(
            network,
            setup,
            [places_of(network, graph, point) for point in setup.points],
            ranges_of(self.config, network, graph, setup.points),
            self.config,
            **self._insertion(),
        )

    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None:
        """Insert the quantizers that a checkpoint lists."""
        self.inserted = InsertedQuantizers.restore(network, structure, self.config, **self._insertion())

    def structure(self) -> dict[str, Any]:
        """Return the points with their number formats as they are now, and where they are."""
        return self.inserted.structure()

    def initialize(self, network: nn.Module, data: CalibrationData) -> None:
        """Initialize from data, in the order in which each step finds what it builds on.

        What rescales weights comes before the ranges, what chooses bit widths wants ranges, what corrects biases wants
        the final bit widths, and batch norm adapts to all of it.
        """
        initialize_ranges(self.inserted.range_tasks("weight", "activation"), data)
        self.activate()
        adapt_batch_norm(network, data, self.config.initializer.batchnorm_adaptation.num_bn_adaptation_samples)

    def activate(self) -> None:
        """Let all quantizers quantize."""
        self.inserted.enable("weight")
        self.inserted.enable("activation")

    @property
    def stage(self) -> CompressionStage:
        """Fully compressed once the quantizers act."""
        active = all(quantizer.enabled for quantizer in self.inserted.quantizers)
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
        return observe(self.inserted)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per quantization point."""
        return rows(self.inserted)

    def summary(self) -> list[str]:
        """Say how many quantizers there are."""
        return [summary(self.inserted)]

    def _insertion(self) -> dict[str, Any]:
        """Return what is common to inserting quantizers for the first time and again."""
        own = self.config.compression_lr_multiplier
        multiplier = self.root.compression_lr_multiplier if own is None else own
        return {
            "multiplier": 1.0 if multiplier is None else multiplier,
            "algorithm": self.name,
            "priority": self.priority,
        }
