"""The first scale of binary activations, as a pure function; the binary values themselves are operators."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["initial_log_scale"]

_LEAST_SHARE = 1e-3
"""Least scale, as a share of the largest activation."""


def initial_log_scale(x: Tensor, share: float = 0.001) -> Tensor:
    """Return the logarithm of the smallest of the largest activations, shape [1].

    Args:
        x: Activations.
        share: How many count as the largest; at least one.

    >>> initial_log_scale(torch.tensor([0.5, 1.0, -3.0]))
    tensor([0.])
    """
    values = x.detach().float().flatten()
    top = values.topk(max(1, round(share * values.numel()))).values
    largest = top.max()
    if not bool(largest > 0):
        # nothing is above zero: the scale is that of what is below, or of nothing
        return values.abs().max().log().nan_to_num(neginf=0.0).reshape(1)
    return torch.maximum(top.min(), largest * _LEAST_SHARE).log().reshape(1)
