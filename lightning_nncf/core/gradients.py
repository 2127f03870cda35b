"""Gradients of what compression adds to a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["scale_gradient"]


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return the tensor as it is, with its gradient multiplied.

    In the forward pass and not as a hook on the parameter: a copy of a module has lost its hooks.

    >>> x = torch.ones(2, requires_grad=True)
    >>> scale_gradient(x, 0.5).sum().backward()
    >>> x.grad
    tensor([0.5000, 0.5000])
    """
    if factor == 1.0 or not torch.is_grad_enabled():
        return x
    scaled: Tensor = _ScaleGradient.apply(x, factor)
    return scaled
