"""Batch normalization in training, an activation function that cuts off, and fake quantization as one operation.

Between two convolutions of a quantized network lie a batch norm, often a ReLU or ReLU6, and a quantizer. Apart, they
read and write memory five times forward and keep two tensors; together they read the values and write the result, and
keep what batch normalization alone keeps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_nncf.ops import native, reference
from lightning_nncf.ops.dispatch import is_plain
from lightning_nncf.ops.functions import direct
from lightning_nncf.ops.library import NAMESPACE, define, in_layout_of
from lightning_nncf.ops.ownership import belongs_to_backward

__all__ = ["fake_quantize_normalized", "pays"]


def pays(norm: Any, x: Tensor) -> bool:
    """Return whether `fake_quantize_normalized` does what a batch norm would do to a tensor now, and does it faster.

    Not for statistics of its own choice (frozen, cumulative or none), for other types than float32, or for channels
    last, where all of memory lies between two values of a channel.

    Args:
        norm: The batch norm, whose forward may be that of a subclass.
        x: What it gets.
    """
    # Asked in every layer of every step, where each question to a tensor costs microseconds: few, the rare ones last.
    if not (norm.training and norm.momentum is not None and norm.affine and norm.track_running_stats):
        return False
    if norm._buffers["num_batches_tracked"] is None:
        return False
    shape = x.shape
    return (
        x.dtype == torch.float32
        and x.is_contiguous()
        and x.is_cpu
        and torch.is_grad_enabled()
        and is_plain()
        and len(shape) > 2
        and shape[1] == norm.num_features
        and (shape[0] > 1 or shape.numel() > shape[1])
        and (native.prepared.get("cpu") or native.backend("cpu")) == "native"
    )


def fake_quantize_normalized(
    norm: Any, x: Tensor, scale: Tensor, quant_min: int, quant_max: int, top: float | None
) -> Tensor:
    """Normalize a batch as a batch norm does in training, then quantize and dequantize it with one scale.

    Differentiable in `x`, the weight and bias of the batch norm, and the scale; updates the statistics of the batch
    norm. No gradient reaches normalized values outside the range, see also `lightning_nncf.ops.rectified`.

    Args:
        norm: Batch norm with weight, bias and statistics of float32, which have a momentum and are counted.
        x: Values ``[N, C, ...]``.
        scale: Upper end of the range, ``[1]``.
        quant_min: Smallest integer; 0 where there is an activation function.
        quant_max: Largest integer.
        top: Where an activation function between the two ends: infinity for ReLU, 6 for ReLU6, ``None`` without one.

    Returns:
        The fake-quantized values, of the shape, type and strides of `x`.

    >>> norm = torch.nn.BatchNorm1d(1).requires_grad_(False)
    >>> x = torch.tensor([-1.0, 0.0, 0.0, 1.0]).reshape(4, 1, 1)
    >>> fake_quantize_normalized(norm, x, torch.tensor([1.0]), 0, 2, 6.0).flatten()
    tensor([0., 0., 0., 1.])
    >>> norm.running_var
    tensor([0.9667])
    """
    parameters, buffers = norm._parameters, norm._buffers  # attributes of modules are looked up slowly
    weight, bias = parameters["weight"], parameters["bias"]
    statistics = buffers["running_mean"], buffers["running_var"], buffers["num_batches_tracked"]
    settings = quant_min, quant_max, top is not None, top or 0.0
    result: Tensor = _Kernel.apply(x, weight, bias, scale, statistics, norm.momentum, norm.eps, settings)
    return result


def _affine(weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
    shape = (1, -1, *[1] * (ndim - 2))
    factor = inverse * weight
    return factor.reshape(shape), (bias - mean * factor).reshape(shape)


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor,
    scale: Tensor,
    momentum: float,
    eps: float,
    quant_min: int,
    quant_max: int,
    rectified: bool,
    top: float,
) -> tuple[Tensor, Tensor, Tensor]:
    values = x.to(torch.promote_types(x.dtype, weight.dtype))
    dims = [dim for dim in range(x.ndim) if dim != 1]
    variance, mean = torch.var_mean(values.double(), dims, correction=0)
    count = x.numel() / x.shape[1]
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
    batches.add_(1)
    mean, inverse = mean.to(weight.dtype), (variance + eps).rsqrt().to(weight.dtype)
    factor, offset = _affine(weight, bias, mean, inverse, x.ndim)
    values = values * factor + offset
    values = values.clamp(0, top) if rectified else values
    values = reference.fake_quantize_symmetric(values, scale, quant_min, quant_max, -1).to(x.dtype)
    return in_layout_of(x, values), mean, inverse


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    inverse: Tensor,
    scale: Tensor,
    quant_min: int,
    quant_max: int,
    rectified: bool,
    top: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, weight.dtype)
    source, passed = x.to(wide), grad.to(wide)
    factor, offset = _affine(weight, bias, mean, inverse, x.ndim)
    values = source * factor + offset
    clamped = values.clamp(0, top) if rectified else values
    passed, grad_scale = reference.fake_quantize_symmetric_backward(passed, clamped, scale, quant_min, quant_max, -1)
    if rectified:
        passed = passed * ((values > 0) & (values < top))
    dims = [dim for dim in range(x.ndim) if dim != 1]
    normal = (source - mean.view_as(factor[0]).unsqueeze(0)) * inverse.view_as(factor[0]).unsqueeze(0)
    grad_weight, grad_bias = (passed * normal).sum(dims), passed.sum(dims)
    count = x.numel() / x.shape[1]
    shared = (grad_bias.view_as(factor[0]) + normal * grad_weight.view_as(factor[0])) / count
    grad_x = (factor * (passed - shared)).to(x.dtype)
    return in_layout_of(x, grad_x), grad_weight, grad_bias, in_layout_of(scale, grad_scale)


def _backward_in_place(grad: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, *others = _backward(grad, *arguments)
    grad.copy_(grad_x)
    return tuple(others)  # type: ignore[return-value]


_SETTINGS = "int quant_min, int quant_max, bool rectified, float top"

define(
    "fake_quantize_normalized",
    "(Tensor x, Tensor weight, Tensor bias, Tensor(a!) running_mean, Tensor(b!) running_var,"
    f" Tensor(c!) batches, Tensor scale, float momentum, float eps, {_SETTINGS}) -> (Tensor, Tensor, Tensor)",
    _forward,
    lambda x, weight, *others: (torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)),
    inner=True,
)
define(
    "fake_quantize_normalized_backward",
    "(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor inverse, Tensor scale,"
    f" {_SETTINGS}) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    lambda grad, x, weight, bias, mean, inverse, scale, *settings: tuple(
        torch.empty_like(each) for each in (x, weight, bias, scale)
    ),
    inner=True,
)
define(
    "fake_quantize_normalized_backward_",
    "(Tensor(a!) grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor inverse, Tensor scale,"
    f" {_SETTINGS}) -> (Tensor, Tensor, Tensor)",
    _backward_in_place,
    lambda grad, x, weight, bias, mean, inverse, scale, *settings: tuple(
        torch.empty_like(each) for each in (weight, bias, scale)
    ),
    inner=True,
)

_ops = getattr(torch.ops, NAMESPACE)
_op = _ops.fake_quantize_normalized.default._op
_backward_op = _ops.fake_quantize_normalized_backward.default._op
_backward_in_place_op = _ops.fake_quantize_normalized_backward_.default._op


@direct
class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        scale: Tensor,
        statistics: tuple[Tensor, Tensor, Tensor],
        momentum: float,
        eps: float,
        settings: tuple[int, int, bool, float],
    ) -> Tensor:
        result, mean, inverse = _op(x, weight, bias, *statistics, scale, momentum, eps, *settings)
        ctx.save_for_backward(x, weight, bias, mean, inverse, scale)
        ctx.settings = settings
        return result  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        if torch.is_grad_enabled():
            return _once(ctx, grad)
        if belongs_to_backward(grad):
            return grad, *_backward_in_place_op(grad, *ctx.saved_tensors, *ctx.settings), None, None, None, None
        return (*_backward_op(grad, *ctx.saved_tensors, *ctx.settings), None, None, None, None)


@once_differentiable
def _once(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiate where a second derivative may be asked for, which must then fail."""
    return (*_backward_op(grad, *ctx.saved_tensors, *ctx.settings), None, None, None, None)
