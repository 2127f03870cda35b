"""The first scale of binary activations, as a pure function; the binary values themselves are operators."""

from __future__ import annotations

from torch import Tensor

__all__ = ["initial_log_scale"]


def initial_log_scale(x: Tensor, share: float = 0.001) -> Tensor:
    """Return the logarithm of the smallest of the largest activations, shape [1].

    Args:
        x: Activations.
        share: How many count as the largest; at least one.

    >>> import torch
    >>> initial_log_scale(torch.tensor([0.5, 1.0, -3.0]))
    tensor([0.])
    """
    values = x.detach().float().flatten()
    top = values.topk(max(1, round(share * values.numel()))).values
    return top.min().clamp(min=1e-3).log().reshape(1)
