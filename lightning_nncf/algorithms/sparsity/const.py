"""Constant sparsity: the zeros that weights have stay zeros."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from lightning_nncf.algorithms.sparsity.base import MaskedSparsity
from lightning_nncf.algorithms.sparsity.config import ConstSparsityConfig
from lightning_nncf.algorithms.sparsity.mask import WeightMask
from lightning_nncf.calibration import CalibrationData
from lightning_nncf.core.registry import register
from lightning_nncf.core.weights import WeightPlace

__all__ = ["ConstSparsity"]


@register(ConstSparsityConfig)
class ConstSparsity(MaskedSparsity):
    """Keeps the pattern of zeros found at the start, while another algorithm or plain training changes the rest."""

    name: ClassVar[str] = "const_sparsity"
    trains: ClassVar[bool] = False

    @torch.no_grad()
    def initialize(self, network: nn.Module, data: CalibrationData) -> None:
        """Take the pattern from the weights."""
        for module, weight in zip(self.masks, self._weights(), strict=True):
            module.set_mask(weight != 0)

    def _make_mask(self, place: WeightPlace) -> WeightMask:
        return WeightMask(place.shape)
