"""Magnitude sparsity: the smallest weights become zeros."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from lightning_nncf.algorithms.sparsity.config import MagnitudeSparsityConfig
from lightning_nncf.algorithms.sparsity.functional import importance, magnitude_masks, magnitude_threshold
from lightning_nncf.algorithms.sparsity.mask import WeightMask
from lightning_nncf.algorithms.sparsity.regrowth import exchanged_share, regrow
from lightning_nncf.algorithms.sparsity.scheduled import ScheduledSparsity
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.registry import register
from lightning_nncf.core.weights import WeightPlace

__all__ = ["MagnitudeSparsity"]


@register(MagnitudeSparsityConfig)
class MagnitudeSparsity(ScheduledSparsity):
    """Masks of the largest weights, found anew whenever the schedule sets a level.

    Weights under the mask keep their values and can come back. With ``regrow`` they come back where the gradient is
    large instead, and begin at zero.

    Args:
        config: Settings.
        root: The whole configuration.
    """

    name: ClassVar[str] = "magnitude_sparsity"

    def __init__(self, config: MagnitudeSparsityConfig, root: NNCFConfig) -> None:
        super().__init__(config, root)
        self.thresholds: list[float] = []
        self._exchange = False

    def before_optimizer_step(self) -> None:
        """Exchange weights in the first optimizer step of an epoch, if dropped weights may regrow."""
        if not self._exchange:
            return
        self._exchange = False
        settings = self.config.params.regrow
        end = self.scheduler.freeze_epoch if settings.end_epoch is None else settings.end_epoch
        share = exchanged_share(max(self.scheduler.current_epoch, 0), end, settings.fraction)
        for place, module in zip(self.places, self.masks, strict=True):
            gradient = module.collected()
            if gradient is None:
                continue
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(gradient)
            weight = place.parameter_of(self.network)
            with torch.no_grad():
                mask, grown = regrow(module.mask, weight, gradient, share)
                module.set_mask(mask)
                weight.masked_fill_(grown, 0.0)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per masked weight, with the importance below which weights were dropped."""
        thresholds = self.thresholds or [-1.0] * len(self.places)
        return [{**row, "threshold": value} for row, value in zip(super().rows(), thresholds, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state and the thresholds."""
        return {**super().state_dict(), "thresholds": self.thresholds}

    def load_state_dict(self, state: Any) -> None:
        """Set state from `state_dict`."""
        super().load_state_dict(state)
        self.thresholds = [float(value) for value in state["thresholds"]]

    @torch.no_grad()
    def _apply(self, level: float) -> None:
        values = [importance(weight, self.config.params.weight_importance) for weight in self._weights()]
        if self.config.params.regrow is not None:
            # Dropped weights come back by their gradient alone, and grown ones begin at zero.
            values = [value.masked_fill_(~module.mask, -1.0) for value, module in zip(values, self.masks, strict=True)]
            self._exchange = level > 0 and self.scheduler.current_epoch >= 0
            for module in self.masks if self._exchange else ():
                module.watch()
        if self.targets is None:
            threshold = magnitude_threshold(values, level)
            self.thresholds = [threshold] * len(values)
            masks = magnitude_masks(values, level, threshold)
        else:
            levels = [self._local_level(level, target) for target in self.targets]
            self.thresholds = [magnitude_threshold([v], own) for v, own in zip(values, levels, strict=True)]
            masks = [
                magnitude_masks([v], own, threshold)[0]
                for v, own, threshold in zip(values, levels, self.thresholds, strict=True)
            ]
        for module, mask in zip(self.masks, masks, strict=True):
            module.set_mask(mask)

    def _make_mask(self, place: WeightPlace) -> WeightMask:
        return WeightMask(place.shape)
