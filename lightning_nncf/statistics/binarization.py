"""Metrics that describe the binarization of a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_nncf.statistics.network_metric import NetworkMetric

__all__ = ["BinarizedShare"]


class BinarizedShare(NetworkMetric):
    """Shares of multiply-accumulate operations and of weights that are binary, each in [0, 1].

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> metric = BinarizedShare()
    >>> metric.update(
    ...     layer_macs=torch.tensor([300, 100]),
    ...     layer_weights=torch.tensor([30, 20]),
    ...     layer_is_binary=torch.tensor([True, False]),
    ... )
    >>> {name: float(value) for name, value in metric.compute().items()}
    {'binarized_macs': 0.75, 'binarized_weights': 0.6000000238418579}
    """

    macs: Tensor
    weights: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("macs", torch.zeros(2, dtype=torch.float64), dist_reduce_fx=None)
        self.add_state("weights", torch.zeros(2, dtype=torch.float64), dist_reduce_fx=None)

    def update(self, layer_macs: Tensor, layer_weights: Tensor, layer_is_binary: Tensor) -> None:
        """Add up layers, all of shape [layers]: operations, weights, and whether weights are binary."""
        for state, values in ((self.macs, layer_macs), (self.weights, layer_weights)):
            sums = torch.stack([values[layer_is_binary].sum(), values.sum()])
            state += sums.to(state.device)

    def compute(self) -> dict[str, Tensor]:
        """Return the shares."""
        return {
            "binarized_macs": (self.macs[0] / self.macs[1].clamp(min=1)).float(),
            "binarized_weights": (self.weights[0] / self.weights[1].clamp(min=1)).float(),
        }
