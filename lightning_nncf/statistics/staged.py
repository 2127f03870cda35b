"""Metric that describes the state of staged training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_nncf.statistics.network_metric import NetworkMetric

__all__ = ["StagedTraining"]


class StagedTraining(NetworkMetric):
    """What the recipe of staged training has set: learning rate, weight decay, and which groups are compressed.

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> metric = StagedTraining()
    >>> metric.update(staged=torch.tensor([0.5, 0.0, 1.0, 0.0]))
    >>> {name: float(value) for name, value in metric.compute().items()}
    {'learning_rate': 0.5, 'weight_decay': 0.0, 'activations_enabled': 1.0, 'weights_enabled': 0.0}
    """

    values: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("values", torch.zeros(4, dtype=torch.float64), dist_reduce_fx=None)

    def update(self, staged: Tensor) -> None:
        """Take the state: learning rate, weight decay, and 1 for compressed activations and weights, shape [4]."""
        self.values = staged.to(self.values)

    def compute(self) -> dict[str, Tensor]:
        """Return the values by name."""
        names = ("learning_rate", "weight_decay", "activations_enabled", "weights_enabled")
        return dict(zip(names, self.values, strict=True))
