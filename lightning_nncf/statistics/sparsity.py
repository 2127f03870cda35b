"""Metrics that describe the sparsity of a network."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_nncf.statistics.network_metric import NetworkMetric

__all__ = ["MaskProbability", "SparseSize", "SparsityLevel", "SparsityTarget"]


class SparsityLevel(NetworkMetric):
    """Share of exact zeros in the sparse layers, in the whole network, and in the sparsest and densest layer.

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> import torch
    >>> metric = SparsityLevel()
    >>> metric.update(
    ...     sparse_zeros=torch.tensor([8, 1]),
    ...     sparse_counts=torch.tensor([10, 10]),
    ...     network_zeros=torch.tensor(9),
    ...     network_count=torch.tensor(40),
    ... )
    >>> {name: round(float(value), 3) for name, value in metric.compute().items()}
    {'sparsity_level': 0.45, 'model_sparsity_level': 0.225, 'sparsity_level_min': 0.1, 'sparsity_level_max': 0.8}
    """

    zeros: Tensor
    counts: Tensor
    network_zeros: Tensor
    network_count: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("zeros", "counts", "network_zeros", "network_count", "lowest", "highest", **kwargs)

    def update(self, sparse_zeros: Tensor, sparse_counts: Tensor, network_zeros: Tensor, network_count: Tensor) -> None:
        """Count zeros.

        Args:
            sparse_zeros: Zeros of each sparse layer, shape [layers].
            sparse_counts: Weights of each sparse layer, shape [layers].
            network_zeros: Zeros among all parameters of the network.
            network_count: Number of those parameters.
        """
        shares = sparse_zeros.double() / sparse_counts.clamp(min=1)
        if len(shares):
            self.lowest.copy_(shares.min())
            self.highest.copy_(shares.max())
        self.zeros += sparse_zeros.sum().to(self.zeros.device)
        self.counts += sparse_counts.sum().to(self.counts.device)
        self.network_zeros += network_zeros.to(self.network_zeros.device)
        self.network_count += network_count.to(self.network_count.device)

    def compute(self) -> dict[str, Tensor]:
        """Return the shares."""
        return {
            "sparsity_level": (self.zeros / self.counts.clamp(min=1)).float(),
            "model_sparsity_level": (self.network_zeros / self.network_count.clamp(min=1)).float(),
            "sparsity_level_min": self.lowest.float(),
            "sparsity_level_max": self.highest.float(),
        }


class SparsityTarget(NetworkMetric):
    """Level that the schedule asks for now.

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> import torch
    >>> metric = SparsityTarget()
    >>> metric.update(scheduled_level=torch.tensor(0.5))
    >>> float(metric.compute())
    0.5
    """

    level: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("level", **kwargs)

    def update(self, scheduled_level: Tensor) -> None:
        """Take the level."""
        self.level.copy_(scheduled_level)

    def compute(self) -> Tensor:
        """Return it."""
        return self.level.float()


class SparseSize(NetworkMetric):
    """Size in megabytes if sparse layers held their non-zero weights and one bit per weight, the rest as it is.

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> import torch
    >>> metric = SparseSize()
    >>> metric.update(
    ...     sparse_zeros=torch.tensor([3_000_000]),
    ...     sparse_counts=torch.tensor([4_000_000]),
    ...     network_count=torch.tensor(4_250_000),
    ... )
    >>> round(float(metric.compute()), 3)
    5.5
    """

    megabytes: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("megabytes", **kwargs)

    def update(self, sparse_zeros: Tensor, sparse_counts: Tensor, network_count: Tensor) -> None:
        """Add up 32-bit sizes; arguments as in `SparsityLevel`."""
        kept = network_count.double() - sparse_zeros.sum().double()
        self.megabytes.copy_((4 * kept + sparse_counts.sum() / 8) / 1e6)

    def compute(self) -> Tensor:
        """Return megabytes (10^6 bytes)."""
        return self.megabytes.float()


class MaskProbability(NetworkMetric):
    """Mean probability that a weight under a learned mask is dropped.

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> import torch
    >>> metric = MaskProbability()
    >>> metric.update(drop_probability=torch.tensor(0.25))
    >>> float(metric.compute())
    0.25
    """

    probability: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("probability", **kwargs)

    def update(self, drop_probability: Tensor) -> None:
        """Take the mean over all weights."""
        self.probability.copy_(drop_probability)

    def compute(self) -> Tensor:
        """Return it."""
        return self.probability.float()
