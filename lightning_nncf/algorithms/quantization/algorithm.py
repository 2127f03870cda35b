"""Quantization-aware training: quantizers at the places that the placement found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from lightning_nncf.algorithms.quantization.config import QuantizationConfig
from lightning_nncf.algorithms.quantization.description import observe, rows, summary
from lightning_nncf.algorithms.quantization.initialization.adjustment import WeightAdjustment
from lightning_nncf.algorithms.quantization.initialization.range_init import initialize_ranges, initialize_weight_ranges
from lightning_nncf.algorithms.quantization.inserted import InsertedQuantizers
from lightning_nncf.algorithms.quantization.padding import (
    PaddedConvolution,
    fix_padding_values,
    insert_paddings,
    padded_convolutions,
)
from lightning_nncf.algorithms.quantization.placement import place_quantizers
from lightning_nncf.algorithms.quantization.placement.hardware import hardware_table
from lightning_nncf.algorithms.quantization.precision.search import prepare_precision, search_precision
from lightning_nncf.algorithms.quantization.precision.space import SearchSpace
from lightning_nncf.algorithms.quantization.range_guard import RangeGuard
from lightning_nncf.algorithms.quantization.request import placement_settings, places_of, ranges_of
from lightning_nncf.calibration import CalibrationData, adapt_batch_norm, ensure_statistics
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.registry import register
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.core.staged import StagedOptimizers
from lightning_nncf.graph.graph import NetworkGraph
from lightning_nncf.schedules.staged import StagedScheduler
from lightning_nncf.statistics.quantization import BitsHistogram, CompressedSize, LearnedRange, QuantizedShare
from lightning_nncf.statistics.staged import StagedTraining

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
        self._adjustment: WeightAdjustment | None = None
        self._padded: tuple[PaddedConvolution, ...] = ()
        self._space: SearchSpace | None = None
        """What `initialize` searches for bit widths; nothing once it has."""
        self._guard: RangeGuard | None = None
        self.optimizers: StagedOptimizers | None = None
        if config.params is not None:
            staged = StagedScheduler(
                config.params.activations_quant_start_epoch, config.params.weights_quant_start_epoch
            )
            staged.attach(self.start_activations, self.start_weights, self._step)
            self.scheduler = staged
            self.optimizers = StagedOptimizers(config.params)

    def build(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Place quantizers on the graph and insert them."""
        settings = placement_settings(self.config, self.root, network, graph)
        setup = place_quantizers(graph, settings)
        precision = self.config.initializer.precision
        if precision is not None:
            setup, self._space = prepare_precision(precision, network, graph, settings, setup)
        self.inserted = InsertedQuantizers(
            network,
            setup,
            [places_of(network, graph, point) for point in setup.points],
            ranges_of(self.config, network, graph, setup.points),
            self.config,
            **self._insertion(),
        )
        if hardware_table(self.root.target_device).adjusts_padding:
            self._padded = padded_convolutions(network, graph, setup)
        self._insert_paddings(network)
        self._adjustment = WeightAdjustment(self.config.initializer, network, graph, setup)

    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None:
        """Insert the quantizers that a checkpoint lists."""
        self.inserted = InsertedQuantizers.restore(network, structure, self.config, **self._insertion())
        self._space = None if structure["search"] is None else SearchSpace.from_dict(structure["search"])
        self._padded = tuple(PaddedConvolution.from_dict(values) for values in structure["padded"])
        self._insert_paddings(network)

    def structure(self) -> dict[str, Any]:
        """Return the points with their number formats as they are now, where they are, and what is still searched."""
        return {
            **self.inserted.structure(),
            "padded": [convolution.to_dict() for convolution in self._padded],
            "search": None if self._space is None else self._space.to_dict(),
        }

    @property
    def adaptation_samples(self) -> int:
        """Samples that batch norms adapt to."""
        return int(self.config.initializer.batchnorm_adaptation.num_bn_adaptation_samples)

    def initialize(self, network: nn.Module, data: CalibrationData) -> None:
        """Initialize from data, in the order in which each step finds what it builds on.

        What rescales weights comes before the ranges, what chooses bit widths wants ranges, what corrects biases wants
        the final bit widths, and batch norm adapts to all of it.
        """
        if self._adjustment is not None:
            self._adjustment.smooth(self.inserted.quantizers, data)
        initialize_ranges(self.inserted.range_tasks("weight", "activation"), data)
        self._search_precision(data)
        self.activate()
        if self._adjustment is not None:
            self._adjustment.correct(self.inserted.quantizers, data)
        adapt_batch_norm(network, data, self.adaptation_samples)

    def _search_precision(self, data: CalibrationData) -> None:
        """Choose bit widths with data, once."""
        if self._space is not None:
            ensure_statistics(data)
            precision = self.config.initializer.precision
            search_precision(self._space, self.inserted, data, precision, self.adaptation_samples)
            self._space = None

    def initialize_ranges(self, network: nn.Module, data: CalibrationData) -> None:
        """Set all ranges from data again."""
        initialize_ranges(self.inserted.range_tasks("weight", "activation"), data)

    def activate(self) -> None:
        """Let quantizers quantize; in staged training only those that start with the first epoch."""
        params = self.config.params
        self.inserted.enable("weight", enabled=params is None or params.weights_quant_start_epoch == 0)
        self.inserted.enable("activation", enabled=params is None or params.activations_quant_start_epoch == 0)

    def start_activations(self) -> None:
        """Quantize activations from now on; `begin` finds their ranges."""
        if not self.inserted.enabled("activation"):
            self.inserted.enable("activation")
            self.wants_data = True

    def start_weights(self) -> None:
        """Quantize weights from now on, in ranges that fit them as they are now."""
        if not self.inserted.enabled("weight"):
            self.inserted.enable("weight")
            initialize_weight_ranges(self.inserted.range_tasks("weight"))

    def begin(self, network: nn.Module, data: CalibrationData) -> None:
        """Set the ranges of activations, which start in this epoch."""
        initialize_ranges(self.inserted.range_tasks("activation"), data)

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Keep the steps of optimizers from ending ranges; set what staged training sets of them."""
        known = list(optimizers)
        if self._guard is None:
            self._guard = RangeGuard(self.inserted.quantizers)
        self._guard.attach(known)
        if self.optimizers is not None:
            self.optimizers.attach(known)

    @property
    def batch_multiplier(self) -> int:
        """Number of batches whose gradients staged training accumulates."""
        return 1 if self.config.params is None else int(self.config.params.batch_multiplier)

    def prepare_for_export(self, network: nn.Module) -> None:
        """Write the padding of convolutions as numbers."""
        fix_padding_values(network)

    @property
    def stage(self) -> CompressionStage:
        """Fully compressed once all quantizers act, partly while only those of weights or of activations do."""
        found = {quantizer.enabled for quantizer in self.inserted.quantizers}
        if found == {True, False}:
            return CompressionStage.PARTIALLY_COMPRESSED
        return CompressionStage.UNCOMPRESSED if found == {False} else CompressionStage.FULLY_COMPRESSED

    def metrics(self) -> dict[str, Metric]:
        """Return metrics of bit widths, share, size and ranges, and of the stages of training."""
        found: dict[str, Metric] = {
            "bits": BitsHistogram(),
            "quantized_share": QuantizedShare(),
            "size": CompressedSize(),
            "range": LearnedRange(),
        }
        return found if self.optimizers is None else {**found, "staged": StagedTraining()}

    def observations(self) -> dict[str, Tensor]:
        """Return what the metrics take."""
        found = observe(self.inserted)
        if self.optimizers is not None:
            enabled = [float(self.inserted.enabled(kind)) for kind in ("activation", "weight")]
            found["staged"] = torch.tensor([*self.optimizers.current, *enabled], dtype=torch.float64)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per quantization point."""
        return rows(self.inserted)

    def summary(self) -> list[str]:
        """Say how many quantizers there are."""
        return [summary(self.inserted), *([] if self._adjustment is None else self._adjustment.summary())]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stages."""
        found = super().state_dict()
        if self.optimizers is not None:
            found["optimizers"] = self.optimizers.state_dict()
            found["enabled"] = {kind: self.inserted.enabled(kind) for kind in ("activation", "weight")}
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the state of the stages."""
        super().load_state_dict(state)
        if self.optimizers is not None:
            self.optimizers.load_state_dict(state["optimizers"])
            for kind, enabled in state["enabled"].items():
                self.inserted.enable(kind, enabled=enabled)

    def _step(self) -> None:
        assert self.optimizers is not None
        assert isinstance(self.scheduler, StagedScheduler)
        self.optimizers.update(self.scheduler.progress)

    def _insert_paddings(self, network: nn.Module) -> None:
        insert_paddings(network, self._padded, self.inserted.quantizers, priority=self.priority + 1)

    def _insertion(self) -> dict[str, Any]:
        """Return what is common to inserting quantizers for the first time and again."""
        return {
            "multiplier": self.lr_multiplier,
            "algorithm": self.name,
            "priority": self.priority,
        }
