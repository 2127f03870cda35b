"""Metrics that describe the pruning of a network."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_nncf.statistics.network_metric import NetworkMetric

__all__ = ["FlopsLeft", "PrunedFilters"]


class PrunedFilters(NetworkMetric):
    """Filters of the prunable layers: how many are left, and which share is removed.

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> import torch
    >>> metric = PrunedFilters()
    >>> metric.update(filters_left=torch.tensor([40, 80]), filters_before=torch.tensor([64, 96]))
    >>> {name: float(value) for name, value in metric.compute().items()}
    {'pruning_ratio': 0.25, 'filters': 120.0}
    """

    left: Tensor
    before: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("left", "before", **kwargs)

    def update(self, filters_left: Tensor, filters_before: Tensor) -> None:
        """Count filters, both of shape [layers]."""
        self.left += filters_left.sum().to(self.left.device)
        self.before += filters_before.sum().to(self.before.device)

    def compute(self) -> dict[str, Tensor]:
        """Return the share removed and the number left."""
        return {
            "pruning_ratio": (1 - self.left / self.before.clamp(min=1)).float(),
            "filters": self.left.float(),
        }


class FlopsLeft(NetworkMetric):
    """FLOPs and parameters of convolutions and linear layers: how many are left, and in which share.

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> import torch
    >>> metric = FlopsLeft()
    >>> metric.update(flops_left=torch.tensor([2e9, 8e9]), parameters_left=torch.tensor([3e6, 4e6]))
    >>> {name: round(float(value), 2) for name, value in metric.compute().items()}
    {'flops_ratio': 0.25, 'gflops': 2.0, 'parameter_ratio': 0.75, 'mparams': 3.0}
    """

    flops: Tensor
    all_flops: Tensor
    parameters_left: Tensor
    all_parameters: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("flops", "all_flops", "parameters_left", "all_parameters", **kwargs)

    def update(self, flops_left: Tensor, parameters_left: Tensor) -> None:
        """Take pairs of what is left and what there was, each of shape [2]."""
        self.flops += flops_left[0].to(self.flops.device)
        self.all_flops += flops_left[1].to(self.flops.device)
        self.parameters_left += parameters_left[0].to(self.flops.device)
        self.all_parameters += parameters_left[1].to(self.flops.device)

    def compute(self) -> dict[str, Tensor]:
        """Return shares left, billions of FLOPs and millions of parameters."""
        return {
            "flops_ratio": (self.flops / self.all_flops.clamp(min=1)).float(),
            "gflops": (self.flops / 1e9).float(),
            "parameter_ratio": (self.parameters_left / self.all_parameters.clamp(min=1)).float(),
            "mparams": (self.parameters_left / 1e6).float(),
        }
