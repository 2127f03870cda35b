"""Fake quantization of what a ReLU or ReLU6 gives, in one pass with it each way.

An unsigned quantizer cuts off what lies below zero, as a ReLU does: its values need no ReLU before it, and neither do
its gradients once zero counts as cut off. What a ReLU6 cuts off above is cut off with the range, whichever ends first.
So both activation functions cost nothing: no pass over memory, no node of autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_nncf.ops import reference
from lightning_nncf.ops.dispatch import is_plain
from lightning_nncf.ops.functions import direct
from lightning_nncf.ops.library import NAMESPACE, define, in_layout_of
from lightning_nncf.ops.ownership import belongs_to_backward

__all__ = ["fake_quantize_rectified", "pays"]


def pays(x: Tensor) -> bool:
    """Return whether `fake_quantize_rectified` is better than the activation function and a quantizer after it.

    In eager training on a CPU, that is, and not to be asked under a compiler or an exporter: one fuses the two by
    itself, the other must see them both. On a GPU it was never measured.

    Args:
        x: The values.
    """
    return x.is_cpu and x.requires_grad and torch.is_grad_enabled() and is_plain()


def fake_quantize_rectified(x: Tensor, scale: Tensor, quant_max: int, top: float) -> Tensor:
    """Quantize and dequantize ``clamp(x, 0, top)`` from zero to the scale; differentiable in `x` and the scale.

    No gradient reaches values of zero, or of `top`, as in `torch.nn.functional.relu` and ``relu6``.

    Args:
        x: Values of any floating-point type; half types are computed in float32.
        scale: Upper end of the range, ``[1]``.
        quant_max: Largest integer; the smallest is 0.
        top: Where the activation function ends: infinity for ReLU, 6 for ReLU6.

    Returns:
        The fake-quantized values, of the shape, type and strides of `x`.

    >>> fake_quantize_rectified(torch.tensor([-9.0, 0.6, 2.8, 9.0]), torch.tensor([7.0]), 7, 3.0)
    tensor([0., 1., 3., 3.])
    """
    result: Tensor = _Kernel.apply(x, scale, quant_max, top)
    return result


def _forward(x: Tensor, scale: Tensor, quant_max: int, top: float) -> Tensor:
    return in_layout_of(x, reference.fake_quantize_symmetric(x.clamp(0, top), scale, 0, quant_max, -1))


def _backward(grad: Tensor, x: Tensor, scale: Tensor, quant_max: int, top: float) -> tuple[Tensor, Tensor]:
    grad_x, grad_scale = reference.fake_quantize_symmetric_backward(grad, x.clamp(0, top), scale, 0, quant_max, -1)
    return in_layout_of(x, grad_x.mul_((x > 0) & (x < top))), in_layout_of(scale, grad_scale)


def _backward_in_place(grad: Tensor, x: Tensor, scale: Tensor, quant_max: int, top: float) -> Tensor:
    grad_x, grad_scale = _backward(grad, x, scale, quant_max, top)
    grad.copy_(grad_x)
    return grad_scale


define(
    "fake_quantize_rectified",
    "(Tensor x, Tensor scale, int quant_max, float top) -> Tensor",
    _forward,
    lambda x, scale, quant_max, top: torch.empty_like(x),
    inner=True,
)
define(
    "fake_quantize_rectified_backward",
    "(Tensor grad, Tensor x, Tensor scale, int quant_max, float top) -> (Tensor, Tensor)",
    _backward,
    lambda grad, x, scale, quant_max, top: (torch.empty_like(x), torch.empty_like(scale)),
    inner=True,
)
define(
    "fake_quantize_rectified_backward_",
    "(Tensor(a!) grad, Tensor x, Tensor scale, int quant_max, float top) -> Tensor",
    _backward_in_place,
    lambda grad, x, scale, quant_max, top: torch.empty_like(scale),
    inner=True,
)

_ops = getattr(torch.ops, NAMESPACE)
_op = _ops.fake_quantize_rectified.default._op
_backward_op = _ops.fake_quantize_rectified_backward.default._op
_backward_in_place_op = _ops.fake_quantize_rectified_backward_.default._op


@direct
class _Kernel(torch.autograd.Function):
    operator = _op

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, quant_max: int, top: float) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.settings = (quant_max, top)
        return _op(x, scale, quant_max, top)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        if torch.is_grad_enabled():
            return _once(ctx, grad)
        if belongs_to_backward(grad):
            return grad, _backward_in_place_op(grad, *ctx.saved_tensors, *ctx.settings), None, None
        return (*_backward_op(grad, *ctx.saved_tensors, *ctx.settings), None, None)


@once_differentiable
def _once(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiate where a second derivative may be asked for, which must then fail."""
    return (*_backward_op(grad, *ctx.saved_tensors, *ctx.settings), None, None)
