"""Modules that make weights and activations binary once they are enabled."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_nncf.algorithms.binarization.functional import initial_log_scale
from lightning_nncf.core.gradients import scale_gradient
from lightning_nncf.core.idle import idle
from lightning_nncf.ops import binarize_activations, binarize_weights

__all__ = ["ActivationBinarizer", "WeightBinarizer"]


class WeightBinarizer(nn.Module):
    """Makes a weight binary.

    Args:
        mode: ``xnor`` scales each output channel by its own mean magnitude, ``dorefa`` all by that of the tensor.
    """

    def __init__(self, mode: Literal["xnor", "dorefa"]) -> None:
        super().__init__()
        self.mode = mode
        self.enabled = False

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with two values, or as it is before it is enabled."""
        return binarize_weights(weight, per_filter=self.mode == "xnor") if self.enabled else weight


class ActivationBinarizer(nn.Module):
    """Makes activations binary, with a trained scale and a trained threshold per channel.

    The scale is taken from the activations of the first training step after it is enabled.

    Args:
        channels: Size of axis 1.
        rank: Number of axes.
        multiplier: Factor on the gradients of scale and thresholds.
    """

    initialized: Tensor

    def __init__(self, channels: int, rank: int = 4, multiplier: float = 1.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.threshold_logit = nn.Parameter(torch.zeros(1, channels, *[1] * (rank - 2)))
        self.register_buffer("initialized", torch.zeros(1, dtype=torch.bool))
        self.multiplier = multiplier
        self.enabled = False

    def forward(self, x: Tensor) -> Tensor:
        """Return binary activations, or the given ones before it is enabled."""
        if not self.enabled:
            return idle(self, x)
        if self.training and not bool(self.initialized):
            self._initialize(x)
        thresholds = scale_gradient(self.threshold_logit.sigmoid(), self.multiplier)
        return binarize_activations(x, scale_gradient(self.height(), self.multiplier), thresholds, axis=1)

    def height(self) -> Tensor:
        """Return the upper of the two values, shape [1]."""
        return self.log_scale.exp()

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        value = initial_log_scale(x)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
        self.log_scale.copy_(value)
        self.initialized.fill_(True)
