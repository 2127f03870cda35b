"""Ranges that change a weight least at its bit width."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_nncf.algorithms.quantization.quantizers import Quantizer

__all__ = ["fit_range"]

_NARROWEST = 0.05
_TRIED = 60


@torch.no_grad()
def fit_range(quantizer: Quantizer, weight: Tensor) -> None:
    """Narrow a range to where the squared error of quantization is smallest, per channel if there are channels.

    With few bits the largest values of a weight are far from the others: levels that reach them leave most values at
    zero.

    Args:
        quantizer: The quantizer; its range reaches the largest values.
        weight: The weight that it quantizes.

    >>> from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
    >>> from lightning_nncf.algorithms.quantization.quantizers import build_quantizer
    >>> weight = torch.tensor([-0.2, 0.2] * 20 + [1.0])
    >>> quantizer = build_quantizer(QuantizerConfig(bits=2, signed=True), weight.shape, 0)
    >>> quantizer.set_range(weight.min(), weight.max())
    >>> quantizer.quantize(weight)[:2].abs().tolist()
    [0.0, 0.0]
    >>> fit_range(quantizer, weight)
    >>> [round(value, 1) for value in quantizer.quantize(weight)[:2].tolist()]
    [-0.2, 0.2]
    """
    start = [parameter.clone() for parameter in quantizer.parameters()]
    best = torch.full(quantizer.shape, torch.inf, device=weight.device)
    factors = torch.ones(quantizer.shape, device=weight.device)

    def rescale(by: Tensor) -> None:
        for parameter, value in zip(quantizer.parameters(), start, strict=True):
            parameter.copy_(value)
        quantizer.rescale(by)

    for step in range(_TRIED):
        factor = torch.full_like(factors, _NARROWEST ** (step / (_TRIED - 1)))
        rescale(factor)
        error = _per_range(quantizer, (quantizer.quantize(weight) - weight).square())
        better = error < best
        best, factors = torch.where(better, error, best), torch.where(better, factor, factors)
    rescale(factors)


def _per_range(quantizer: Quantizer, values: Tensor) -> Tensor:
    """Add up values that share a range."""
    if quantizer.axis < 0:
        return values.sum().reshape(quantizer.shape)
    return values.sum(dim=[dim for dim in range(values.ndim) if dim != quantizer.axis], keepdim=True)
