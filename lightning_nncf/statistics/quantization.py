"""Metrics that describe the quantization of a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_nncf.statistics.network_metric import NetworkMetric

__all__ = ["BitsHistogram", "CompressedSize", "LearnedRange", "QuantizedShare"]


class BitsHistogram(NetworkMetric):
    """Number of quantizers per bit width.

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> metric = BitsHistogram()
    >>> metric.update(weight_bits=torch.tensor([8, 8, 4]), activation_bits=torch.tensor([8]))
    >>> {name: int(count) for name, count in metric.compute().items()}
    {'weight_bits_4': 1, 'weight_bits_8': 2, 'activation_bits_8': 1}
    """

    weights: Tensor
    activations: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("weights", torch.zeros(9, dtype=torch.long), dist_reduce_fx=None)
        self.add_state("activations", torch.zeros(9, dtype=torch.long), dist_reduce_fx=None)

    def update(self, weight_bits: Tensor, activation_bits: Tensor) -> None:
        """Count bit widths, each tensor of shape [quantizers]."""
        self.weights += torch.bincount(weight_bits.cpu(), minlength=9).to(self.weights.device)
        self.activations += torch.bincount(activation_bits.cpu(), minlength=9).to(self.activations.device)

    def compute(self) -> dict[str, Tensor]:
        """Return the counts of the bit widths that occur."""
        return {
            f"{kind}_bits_{bits}": counts[bits].float()
            for kind, counts in (("weight", self.weights), ("activation", self.activations))
            for bits in counts.nonzero().flatten().tolist()
        }


class QuantizedShare(NetworkMetric):
    """Share of the network's parameters that are quantized, in [0, 1].

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> metric = QuantizedShare()
    >>> metric.update(parameter_bits=torch.tensor([8, 32]), parameter_counts=torch.tensor([30, 10]))
    >>> float(metric.compute())
    0.75
    """

    quantized: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("quantized", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx=None)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx=None)

    def update(self, parameter_bits: Tensor, parameter_counts: Tensor) -> None:
        """Count parameters, both of shape [parameters]; fewer than 16 bits mean quantized."""
        self.quantized += parameter_counts[parameter_bits < 16].sum().to(self.quantized.device)
        self.total += parameter_counts.sum().to(self.total.device)

    def compute(self) -> Tensor:
        """Return the share."""
        return (self.quantized / self.total.clamp(min=1)).float()


class CompressedSize(NetworkMetric):
    """Size of the parameters in megabytes at their bit widths, and how much smaller they got.

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> metric = CompressedSize()
    >>> metric.update(parameter_bits=torch.tensor([8, 32]), parameter_counts=torch.tensor([3_000_000, 250_000]))
    >>> {name: round(float(value), 2) for name, value in metric.compute().items()}
    {'size_mb': 4.0, 'size_reduction': 3.25}
    """

    bits: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("bits", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx=None)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx=None)

    def update(self, parameter_bits: Tensor, parameter_counts: Tensor) -> None:
        """Add up sizes, both of shape [parameters]."""
        self.bits += (parameter_bits.double() * parameter_counts.double()).sum().to(self.bits.device)
        self.total += parameter_counts.double().sum().to(self.total.device)

    def compute(self) -> dict[str, Tensor]:
        """Return megabytes (10^6 bytes) and the ratio of the size at 32 bits to them."""
        return {
            "size_mb": (self.bits / 8e6).float(),
            "size_reduction": (32 * self.total / self.bits.clamp(min=1)).float(),
        }


class LearnedRange(NetworkMetric):
    """Mean and largest width of the ranges of the activation quantizers.

    Args:
        **kwargs: Arguments of `torchmetrics.Metric`.

    >>> metric = LearnedRange()
    >>> metric.update(range_widths=torch.tensor([1.0, 3.0]))
    >>> {name: float(value) for name, value in metric.compute().items()}
    {'range_mean': 2.0, 'range_max': 3.0}
    """

    widths: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("widths", [], dist_reduce_fx=None)

    def update(self, range_widths: Tensor) -> None:
        """Collect widths ``high - low``, shape [quantizers]."""
        self.widths.append(range_widths)

    def compute(self) -> dict[str, Tensor]:
        """Return the mean and the maximum."""
        widths = torch.cat([width.reshape(-1).float() for width in self.widths] or [torch.zeros(1)])
        if widths.numel() == 0:
            widths = torch.zeros(1)
        return {"range_mean": widths.mean(), "range_max": widths.max()}
