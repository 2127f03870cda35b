"""Which implementation a call takes: the operator in eager mode and export, the formula under ``torch.compile``.

Inductor fuses the formula with its neighbours (batch norm, ReLU and fake quantization become one kernel); an operator
is opaque to it. An exported program keeps the operator as one node, which the exporters translate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_nncf.ops import library, reference
from lightning_nncf.ops.functions import direct
from lightning_nncf.ops.ownership import belongs_to_backward

__all__ = ["fake_quantize_asymmetric", "fake_quantize_symmetric", "is_plain", "operator_of", "slopes_of"]

_ops = getattr(torch.ops, library.NAMESPACE)
_symmetric_op = _ops.fake_quantize_symmetric.default
_symmetric_forward_op = _ops.fake_quantize_symmetric_forward.default._op
_symmetric_backward_op = _ops.fake_quantize_symmetric_backward.default._op
_symmetric_backward_in_place_op = _ops.fake_quantize_symmetric_backward_.default._op
_asymmetric_op = _ops.fake_quantize_asymmetric.default
_asymmetric_forward_op = _ops.fake_quantize_asymmetric_forward.default._op
_asymmetric_backward_op = _ops.fake_quantize_asymmetric_backward.default._op
_asymmetric_backward_in_place_op = _ops.fake_quantize_asymmetric_backward_.default._op


def fake_quantize_symmetric(x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int) -> Tensor:
    """Quantize and dequantize on a grid whose upper end is the scale; differentiable in `x` and `scale`.

    Args:
        x: Values of any floating-point type; half types are computed in float32.
        scale: ``[1]`` for `axis` -1, else as many values as `x` has along `axis`.
        quant_min: Smallest integer.
        quant_max: Largest integer.
        axis: Axis of the channels, or -1 for one scale per tensor.

    Returns:
        The fake-quantized values, of the shape, type and strides of `x`.

    >>> fake_quantize_symmetric(torch.tensor([-9.0, 0.6, 9.0]), torch.tensor([7.0]), -8, 7, -1)
    tensor([-8.,  1.,  7.])
    """
    compiling = torch.compiler.is_compiling()
    if compiling and not torch.compiler.is_exporting():
        compiled: Tensor = _SymmetricFormula.apply(x, scale, quant_min, quant_max, axis)
        return compiled
    try:
        apply = _symmetric_op if compiling or not is_plain() else _SymmetricKernel.apply
        result: Tensor = apply(x, scale, quant_min, quant_max, axis)
    except RuntimeError:
        reference.check_parameters(x, (scale,), axis)
        raise
    return result


def fake_quantize_asymmetric(x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int) -> Tensor:
    """Quantize and dequantize between two ends, tuned to hold zero; differentiable in `x` and both ends.

    Args:
        x: Values of any floating-point type; half types are computed in float32.
        input_low: Lower end of the range; ``[1]`` for `axis` -1, else as many values as `x` has along `axis`.
        input_range: Width of the range, of the shape of `input_low`.
        levels: Number of values.
        axis: Axis of the channels, or -1 for one range per tensor.

    Returns:
        The fake-quantized values, of the shape, type and strides of `x`.

    >>> fake_quantize_asymmetric(torch.tensor([-9.0, 0.6, 9.0]), torch.tensor([-1.0]), torch.tensor([3.0]), 4, -1)
    tensor([-1.,  1.,  2.])
    """
    compiling = torch.compiler.is_compiling()
    if compiling and not torch.compiler.is_exporting():
        compiled: Tensor = _AsymmetricFormula.apply(x, input_low, input_range, levels, axis)
        return compiled
    try:
        apply = _asymmetric_op if compiling or not is_plain() else _AsymmetricKernel.apply
        result: Tensor = apply(x, input_low, input_range, levels, axis)
    except RuntimeError:
        reference.check_parameters(x, (input_low, input_range), axis)
        raise
    return result


def operator_of(node: Any) -> Any:
    """Return the operator that a node of autograd differentiates, if it is one of a fake quantizer in eager mode.

    The node holds what it needs as ``saved_tensors``, of which the first is as large as the result, and ``settings``:
    together the arguments of the operator.

    Args:
        node: ``grad_fn`` of a tensor.
    """
    return getattr(_function_of(node), "operator", None)


def slopes_of(node: Any) -> Callable[..., tuple[Tensor, ...]] | None:
    """Return what computes the derivatives by the range, for a node of which `operator_of` gives the operator.

    It takes the arguments of the operator and gives a tensor of the shape of the values for each parameter.

    Args:
        node: ``grad_fn`` of a tensor.
    """
    return getattr(_function_of(node), "slopes", None)


def _function_of(node: Any) -> Any:
    """Return the `torch.autograd.Function` of a node of autograd, if it has one."""
    return getattr(type(node), "_forward_cls", None)


def is_plain() -> bool:
    """Return whether nothing but autograd looks at the call: then a function of ours is a third cheaper per call.

    Outside of a compiler, that is.
    """
    return not (
        torch._C._is_tracing() or torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack()
    )


@direct
class _SymmetricKernel(torch.autograd.Function):
    operator = _symmetric_op
    slopes = staticmethod(reference.symmetric_slopes)

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.settings = (quant_min, quant_max, axis)
        return _symmetric_forward_op(x, scale, quant_min, quant_max, axis)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        if torch.is_grad_enabled():
            return _symmetric_once(ctx, grad)
        if belongs_to_backward(grad):
            return grad, _symmetric_backward_in_place_op(grad, *ctx.saved_tensors, *ctx.settings), None, None, None
        return (*_symmetric_backward_op(grad, *ctx.saved_tensors, *ctx.settings), None, None, None)


@direct
class _AsymmetricKernel(torch.autograd.Function):
    operator = _asymmetric_op
    slopes = staticmethod(reference.asymmetric_slopes)

    @staticmethod
    def forward(ctx: Any, x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int) -> Tensor:
        ctx.save_for_backward(x, input_low, input_range)
        ctx.settings = (levels, axis)
        return _asymmetric_forward_op(x, input_low, input_range, levels, axis)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        if torch.is_grad_enabled():
            return _asymmetric_once(ctx, grad)
        if belongs_to_backward(grad):
            return grad, *_asymmetric_backward_in_place_op(grad, *ctx.saved_tensors, *ctx.settings), None, None
        return (*_asymmetric_backward_op(grad, *ctx.saved_tensors, *ctx.settings), None, None)


@once_differentiable
def _symmetric_once(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiate where a second derivative may be asked for, which must then fail."""
    return (*_symmetric_backward_op(grad, *ctx.saved_tensors, *ctx.settings), None, None, None)


@once_differentiable
def _asymmetric_once(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiate where a second derivative may be asked for, which must then fail."""
    return (*_asymmetric_backward_op(grad, *ctx.saved_tensors, *ctx.settings), None, None)


class _SymmetricFormula(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.settings = (quant_min, quant_max, axis)
        return reference.fake_quantize_symmetric(x, scale, quant_min, quant_max, axis)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        return (
            *reference.fake_quantize_symmetric_backward(*grads, *ctx.saved_tensors, *ctx.settings),
            None,
            None,
            None,
        )


class _AsymmetricFormula(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int) -> Tensor:
        ctx.save_for_backward(x, input_low, input_range)
        ctx.settings = (levels, axis)
        return reference.fake_quantize_asymmetric(x, input_low, input_range, levels, axis)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        return (*reference.fake_quantize_asymmetric_backward(*grads, *ctx.saved_tensors, *ctx.settings), None, None)
