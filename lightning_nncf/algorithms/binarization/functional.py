"""Binary weights and activations as pure functions with the gradients that train them.

After M. Rastegari et al., "XNOR-Net" (2016), S. Zhou et al., "DoReFa-Net" (2016), and the trainable scale and threshold
of activations that NNCF added.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["BinarizationMode", "binarize_activation", "binarize_weight", "initial_log_scale"]

BinarizationMode = Literal["xnor", "dorefa"]


class _BinaryWeight(torch.autograd.Function):
    """Sign times mean magnitude; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mode: BinarizationMode) -> Tensor:
        return _binary_weight(weight, mode)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _BinaryActivation(torch.autograd.Function):
    """A step of trainable height at a trainable place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, threshold: Tensor) -> Tensor:
        y = _binary_activation(x, scale, threshold)
        ctx.save_for_backward(x, y, scale, threshold)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, y, scale, threshold = ctx.saved_tensors
        gradient = gradients[0]
        below = x <= scale
        inside = (x > 0) & (x < scale)
        d_x = gradient * ((x >= 0) & below)
        d_scale = (gradient * torch.where(below, (y - x) / scale, 1.0)).sum().reshape(scale.shape)
        axes = [axis for axis in range(x.dim()) if threshold.shape[axis] == 1]
        d_threshold = -(gradient * inside).sum(axes, keepdim=True) if axes else -(gradient * inside)
        return d_x.to(x.dtype), d_scale.to(scale.dtype), d_threshold.to(threshold.dtype)


def binarize_weight(weight: Tensor, mode: BinarizationMode) -> Tensor:
    """Return weights of two values, plus and minus a mean magnitude; zeros count as negative.

    Args:
        weight: Weights, output channels first.
        mode: ``xnor`` takes the mean of each output channel, ``dorefa`` that of the tensor.

    >>> binarize_weight(torch.tensor([[1.0, -3.0], [2.0, 4.0]]), "xnor")
    tensor([[ 2., -2.],
            [ 3.,  3.]])
    >>> binarize_weight(torch.tensor([[1.0, -3.0], [2.0, 4.0]]), "dorefa")
    tensor([[ 2.5000, -2.5000],
            [ 2.5000,  2.5000]])
    """
    if torch.is_grad_enabled() and weight.requires_grad:
        binary: Tensor = _BinaryWeight.apply(weight, mode)
        return binary
    return _binary_weight(weight, mode)


def binarize_activation(x: Tensor, scale: Tensor, threshold: Tensor) -> Tensor:
    """Return ``scale`` where ``x > threshold * scale``, else 0.

    Inside [0, scale] the gradient passes straight through to ``x``. The scale's is the residual ``(y - x) / scale``
    below it and 1 above; the threshold's is minus the sum of the gradients between 0 and the scale.

    Args:
        x: Activations, channels at axis 1.
        scale: Height of the step, positive, shape [1].
        threshold: Place of the step as a share of the scale, in (0, 1), of the same rank as ``x``.

    >>> binarize_activation(torch.tensor([[0.2, 0.8, 3.0]]), torch.tensor([2.0]), torch.tensor([[0.25]]))
    tensor([[0., 2., 2.]])
    """
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad or threshold.requires_grad):
        binary: Tensor = _BinaryActivation.apply(x, scale, threshold)
        return binary
    return _binary_activation(x, scale, threshold)


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
    return top.min().clamp(min=1e-3).log().reshape(1)


def _binary_weight(weight: Tensor, mode: BinarizationMode) -> Tensor:
    axes = tuple(range(1, weight.dim())) if mode == "xnor" else tuple(range(weight.dim()))
    magnitude = weight.abs().mean(axes, keepdim=True)
    return torch.where(weight > 0, magnitude, -magnitude)


def _binary_activation(x: Tensor, scale: Tensor, threshold: Tensor) -> Tensor:
    step = scale.to(x.dtype)
    return torch.where(x > threshold.to(x.dtype) * step, step, torch.zeros_like(step))
