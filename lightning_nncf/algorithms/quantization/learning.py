"""How the ranges of quantizers learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["RangeLearning", "scale_gradient"]


@dataclass(frozen=True, kw_only=True)
class RangeLearning:
    """How the range of a quantizer learns.

    Args:
        logarithm: Train the logarithm of the scale or of the width, so that steps are relative and it stays positive.
        multiplier: Factor on the gradients of the range.
        lsq_values: Number of values that share the range, in one sample for activations. With it the gradients are
            divided by ``sqrt(lsq_values * quant_max)``, as in `Learned Step Size Quantization
            <https://arxiv.org/abs/1902.08153>`_, section 2.2.

    >>> RangeLearning(lsq_values=100).factor(quant_max=4)
    0.05
    """

    logarithm: bool = False
    multiplier: float = 1.0
    lsq_values: int | None = None

    def factor(self, quant_max: int) -> float:
        """Return the factor on the gradients of the range."""
        if self.lsq_values is None:
            return self.multiplier
        return float(self.multiplier / (self.lsq_values * quant_max) ** 0.5)


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
