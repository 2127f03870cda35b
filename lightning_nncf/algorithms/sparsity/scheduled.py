"""Masks that follow a scheduled level until they are frozen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_nncf.algorithms.sparsity.base import MaskedSparsity
from lightning_nncf.calibration import CalibrationData
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.graph.graph import NetworkGraph
from lightning_nncf.graph.scopes import scope_filter
from lightning_nncf.schedules.level import LevelScheduler, MultistepScheduler
from lightning_nncf.statistics.sparsity import SparsityTarget

__all__ = ["ScheduledSparsity"]


class ScheduledSparsity(MaskedSparsity):
    """Masks whose level a scheduler sets.

    Args:
        config: Settings of the algorithm, with a schedule in ``params``.
        root: The whole configuration.
    """

    scheduler: LevelScheduler

    def __init__(self, config: Any, root: NNCFConfig) -> None:
        super().__init__(config, root)
        self.frozen = False
        self.targets: list[float | None] | None = None
        self.scheduler = config.params.scheduler(*self._ends(), self._reached)
        self.scheduler.attach(self._follow, self.freeze)

    def initialize(self, network: nn.Module, data: CalibrationData) -> None:
        """Bring the initial level about."""
        self._follow(self.scheduler.initial)

    @property
    def level(self) -> float:
        """The level that the schedule asks for now."""
        return self.scheduler.level

    @property
    def stage(self) -> CompressionStage:
        """Uncompressed at level 0, fully compressed from the target on."""
        if self.level >= self.scheduler.target - 1e-9:
            return CompressionStage.FULLY_COMPRESSED
        return CompressionStage.UNCOMPRESSED if self.level <= 0 else CompressionStage.PARTIALLY_COMPRESSED

    def freeze(self) -> None:
        """Let masks change no more."""
        self.frozen = True

    def structure(self) -> dict[str, Any]:
        """Return where the masks are, and targets of single layers."""
        return {**super().structure(), "targets": self.targets}

    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None:
        """Insert the masks that a checkpoint lists."""
        super().restore(network, structure)
        self.targets = structure["targets"]

    def metrics(self) -> dict[str, Metric]:
        """Return metrics of sparsity, its target and the size it allows."""
        return {**super().metrics(), "sparsity_target": SparsityTarget()}

    def observations(self) -> dict[str, Tensor]:
        """Return what the metrics need."""
        return {**super().observations(), "scheduled_level": torch.tensor(self.level)}

    def summary(self) -> list[str]:
        """Say what the masks are on, and what the schedule will not reach."""
        lines = super().summary()
        target_epoch: int | None = getattr(self.scheduler, "target_epoch", None)
        freeze_epoch = self.scheduler.freeze_epoch
        if target_epoch is not None and freeze_epoch <= target_epoch and self.scheduler.initial < self.scheduler.target:
            key = "multistep_steps" if isinstance(self.scheduler, MultistepScheduler) else "sparsity_target_epoch"
            lines.append(
                f"{type(self).__name__}: masks are frozen when epoch {freeze_epoch} begins (`sparsity_freeze_epoch`), "
                f"so they never reach the target, which comes in epoch {target_epoch} (`{key}`)"
            )
        return lines

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state and whether masks are frozen."""
        return {**super().state_dict(), "frozen": self.frozen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set state from `state_dict`."""
        super().load_state_dict(state)
        self.frozen = bool(state["frozen"])

    def _ends(self) -> tuple[float, float]:
        """Return initial and target level."""
        return self.config.sparsity_init, self.config.params.sparsity_target

    def _prepare(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Find the targets of single layers in the local mode."""
        levels: Mapping[str, float] = getattr(self.config.params, "sparsity_levels", {})
        if not levels:
            return
        types = {name: type(module).__name__ for name, module in network.named_modules(remove_duplicate=False)}
        addresses = [op.address for op in graph.ops()]
        self.targets = [None] * len(self.places)
        for scope, level in levels.items():
            inside = scope_filter(addresses, target=[scope], module_types=types, validate=self.config.validate_scopes)
            for index, place in enumerate(self.places):
                if inside(place.address):
                    self.targets[index] = level

    def _local_level(self, level: float, target: float | None) -> float:
        """Return the level of a layer with its own target when the schedule is at some level."""
        if target is None:
            return 0.0
        initial, end = self.scheduler.initial, self.scheduler.target
        share = (level - initial) / (end - initial) if end != initial else 1.0
        return initial + share * (target - initial) if target > initial else target

    def _follow(self, level: float) -> None:
        if not self.frozen and self.masks:
            with torch.no_grad():
                self._apply(level)

    def _reached(self) -> float:
        return self.sparsity() if self.masks else self.scheduler.level

    @abstractmethod
    def _apply(self, level: float) -> None:
        """Change the masks to a level."""
