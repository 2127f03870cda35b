"""Binarization of weights and activations: formulas, operators, and which of them a call takes.

Weights become their sign times their mean magnitude, per output filter (Rastegari et al. 2016, XNOR-Net) or per
tensor (Zhou et al. 2016, DoReFa-Net), zero counting as negative; gradients pass unchanged. Activations become 0 or a
trainable scale, by a threshold that is a trainable share of the scale.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_nncf.ops import library

__all__ = ["binarize_activations", "binarize_weights"]


def binarize_weights(x: Tensor, *, per_filter: bool) -> Tensor:
    """Replace weights by their sign times their mean magnitude; gradients pass unchanged.

    Args:
        x: Weights ``[O, ...]`` of any floating-point type.
        per_filter: Take the mean over each of the O filters (XNOR), else over the tensor (DoReFa).

    Returns:
        Weights of two values per filter or per tensor, of the shape, type and strides of `x`.

    >>> binarize_weights(torch.tensor([[1.0, -3.0], [0.0, 2.0]]), per_filter=True)
    tensor([[ 2., -2.],
            [-1.,  1.]])
    """
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        compiled: Tensor = _WeightsFormula.apply(x, per_filter)
        return compiled
    result: Tensor = torch.ops.lightning_nncf.binarize_weights(x, per_filter)
    return result


def binarize_activations(x: Tensor, scale: Tensor, threshold: Tensor, axis: int) -> Tensor:
    """Replace values above a share of the scale by the scale and the others by zero.

    The gradient of ``x`` passes between 0 and the scale. That of the scale is the residual ``(y - x) / scale`` up to
    the scale and 1 above it, that of the threshold -1 between 0 and the scale.

    Args:
        x: Values of any floating-point type.
        scale: The upper of the two values, positive, ``[1]``.
        threshold: Share of the scale above which a value is kept: ``[1]`` for `axis` -1, else as many values as `x`
            has along `axis`.
        axis: Axis of the channels, or -1 for one threshold per tensor.

    Returns:
        Values of the shape, type and strides of `x`.

    >>> binarize_activations(torch.tensor([-1.0, 0.9, 1.1, 5.0]), torch.tensor([2.0]), torch.tensor([0.5]), -1)
    tensor([0., 0., 2., 2.])
    """
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        compiled: Tensor = _ActivationsFormula.apply(x, scale, threshold, axis)
        return compiled
    try:
        result: Tensor = torch.ops.lightning_nncf.binarize_activations(x, scale, threshold, axis)
    except RuntimeError:
        _prepare(x, scale, threshold, axis)  # says what does not fit
        raise
    return result


def reference_weights(x: Tensor, per_filter: bool) -> Tensor:
    """Compute `binarize_weights` by plain PyTorch, the mean in float64.

    Args:
        x: As there.
        per_filter: As there.
    """
    dims = list(range(1, x.ndim)) if per_filter else list(range(x.ndim))
    mean = x.abs().sum(dim=dims, keepdim=True, dtype=torch.float64) if dims else x.abs().double()
    mean = (mean / max(1, x.numel() // max(1, mean.numel()))).to(x.dtype)
    return torch.where(x > 0, mean, -mean)


def reference_activations(x: Tensor, scale: Tensor, threshold: Tensor, axis: int) -> Tensor:
    """Compute `binarize_activations` by plain PyTorch.

    Args:
        x: As there.
        scale: As there.
        threshold: As there.
        axis: As there.
    """
    values, scale, threshold = _prepare(x, scale, threshold, axis)
    return torch.where(values > threshold * scale, scale, torch.zeros_like(scale)).to(x.dtype)


def reference_activations_backward(
    grad: Tensor, x: Tensor, scale: Tensor, threshold: Tensor, axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `binarize_activations` by plain PyTorch.

    Args:
        grad: Gradient of the result.
        x: As there.
        scale: As there.
        threshold: As there.
        axis: As there.

    Returns:
        The gradients of `x`, of `scale` and of `threshold`, each of the shape and type of its tensor.
    """
    values, height, bounds = _prepare(x, scale, threshold, axis)
    grads = grad.to(values.dtype)
    residual = torch.where(values > bounds * height, 1.0, 0.0).to(values.dtype) - values / height
    grad_scale = (grads * torch.where(values <= height, residual, 1.0)).sum().reshape(scale.shape)
    between = torch.where((values > 0) & (values < height), -grads, 0.0)
    dims = [dim for dim in range(x.ndim) if dim != axis]
    grad_threshold = (between.sum(dim=dims) if dims else between).reshape(threshold.shape)
    grad_x = torch.where((values >= 0) & (values <= height), grads, 0.0)
    return grad_x.to(x.dtype), grad_scale.to(scale.dtype), grad_threshold.to(threshold.dtype)


def _prepare(x: Tensor, scale: Tensor, threshold: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bring all to the type of the computation, the parameters broadcastable to the values."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    channels = 1 if axis < 0 else x.shape[axis]
    if scale.numel() != 1 or threshold.numel() != channels:
        raise ValueError(
            f"binarizing a tensor {tuple(x.shape)} with `axis` {axis} needs one scale and {channels} thresholds, got "
            f"{tuple(scale.shape)} and {tuple(threshold.shape)}"
        )
    shape = [] if axis < 0 else [1] * axis + [channels] + [1] * (x.ndim - axis - 1)
    return x.to(dtype), scale.to(dtype).reshape([]), threshold.to(dtype).reshape(shape)


class _WeightsFormula(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, per_filter: bool) -> Tensor:
        return reference_weights(x, per_filter)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        return grads[0], None


class _ActivationsFormula(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, threshold: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(x, scale, threshold)
        ctx.axis = axis
        return reference_activations(x, scale, threshold, axis)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, threshold = ctx.saved_tensors
        return (*reference_activations_backward(grad, x, scale, threshold, ctx.axis), None)


def _kernel_weights(x: Tensor, per_filter: bool) -> Tensor:
    return library.in_layout_of(x, reference_weights(x, per_filter))


def _kernel_activations(x: Tensor, scale: Tensor, threshold: Tensor, axis: int) -> Tensor:
    return library.in_layout_of(x, reference_activations(x, scale, threshold, axis))


def _kernel_activations_backward(
    grad: Tensor, x: Tensor, scale: Tensor, threshold: Tensor, axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    results = reference_activations_backward(grad, x, scale, threshold, axis)
    of_x, of_scale, of_threshold = map(library.in_layout_of, (x, scale, threshold), results)
    return of_x, of_scale, of_threshold


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    pass


def _save_activations(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *saved, ctx.axis = inputs
    ctx.save_for_backward(*saved)


def _differentiate_activations(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.lightning_nncf.binarize_activations_backward(grad, *ctx.saved_tensors, ctx.axis)
    return (*grads, None)


library.define(
    "binarize_weights",
    "(Tensor x, bool per_filter) -> Tensor",
    _kernel_weights,
    lambda x, per_filter: torch.empty_like(x),
    backward=lambda ctx, grad: (grad, None),
    save=_save_nothing,
)
library.define(
    "binarize_activations",
    "(Tensor x, Tensor scale, Tensor threshold, int axis) -> Tensor",
    _kernel_activations,
    lambda x, scale, threshold, axis: torch.empty_like(x),
    backward=_differentiate_activations,
    save=_save_activations,
)
library.define(
    "binarize_activations_backward",
    "(Tensor grad, Tensor x, Tensor scale, Tensor threshold, int axis) -> (Tensor, Tensor, Tensor)",
    _kernel_activations_backward,
    lambda grad, x, scale, threshold, axis: tuple(map(torch.empty_like, (x, scale, threshold))),
)
