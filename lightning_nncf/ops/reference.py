"""Fake quantization as formulas of plain PyTorch: what every other implementation is measured against.

A range is a grid, see `lightning_nncf.ops.grids`. With ``v = x / step`` the result is
``round(clamp(v, quant_min, quant_max)) * step``. Because the bounds are whole steps, this equals clamping in the
float range and rounding inside it; ties go to the even integer, as in ONNX QuantizeLinear.

The gradient of ``x`` passes inside the range only. The gradients of the range are those of the residual
``(y - x) / range`` inside and of the bound outside (Jain et al. 2020, TQT; Esser et al. 2020, LSQ), with the range
as the denominator as in NNCF.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_nncf.ops.grids import asymmetric_grid, symmetric_grid

__all__ = [
    "asymmetric_slopes",
    "check_parameters",
    "fake_quantize_asymmetric",
    "fake_quantize_asymmetric_backward",
    "fake_quantize_symmetric",
    "fake_quantize_symmetric_backward",
    "symmetric_slopes",
]


def fake_quantize_symmetric(x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int) -> Tensor:
    """Quantize and dequantize on a grid whose upper end is the scale.

    Args:
        x: Values of any floating-point type; half types are computed in float32.
        scale: ``[1]`` for `axis` -1, else as many values as `x` has along `axis`.
        quant_min: Smallest integer.
        quant_max: Largest integer.
        axis: Axis of the channels, or -1 for one scale per tensor.

    Returns:
        The fake-quantized values, of the shape and type of `x`.

    >>> fake_quantize_symmetric(torch.tensor([-9.0, -0.4, 0.6, 9.0]), torch.tensor([7.0]), -8, 7, -1)
    tensor([-8., -0.,  1.,  7.])
    """
    values, (scale,) = _prepare(x, (scale,), axis)
    step, _, _ = symmetric_grid(scale, quant_min, quant_max)
    return values.div(step).clamp_(quant_min, quant_max).round_().mul_(step).to(x.dtype)


def fake_quantize_symmetric_backward(
    grad: Tensor, x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `fake_quantize_symmetric`.

    Args:
        grad: Gradient of the result.
        x: As in the forward.
        scale: As in the forward.
        quant_min: As in the forward.
        quant_max: As in the forward.
        axis: As in the forward.

    Returns:
        The gradients of `x` and of `scale`, each of the type of its tensor.

    >>> x = torch.tensor([-9.0, -0.4, 0.75, 9.0])
    >>> fake_quantize_symmetric_backward(torch.ones(4), x, torch.tensor([7.0]), 0, 7, -1)
    (tensor([0., 0., 1., 0.]), tensor([1.0357]))
    """
    slope, outside = _symmetric_slope(x, scale, quant_min, quant_max, axis)
    grads = grad.to(slope.dtype)
    grad_x = torch.addcmul(grads, grads, outside, value=-1)
    grad_scale = _sum_like(slope.mul_(grads), scale, axis) / (quant_max - quant_min)
    return grad_x.to(x.dtype), (grad_scale * scale.sign()).to(scale.dtype)


def symmetric_slopes(x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int) -> tuple[Tensor]:
    """Return the derivative of each value of `fake_quantize_symmetric` by its scale.

    Args:
        x: As in the forward.
        scale: As in the forward.
        quant_min: As in the forward.
        quant_max: As in the forward.
        axis: As in the forward.

    Returns:
        One tensor of the shape of `x`, in the type of the computation.

    >>> symmetric_slopes(torch.tensor([-9.0, 0.75, 9.0]), torch.tensor([7.0]), 0, 7, -1)[0]
    tensor([0.0000, 0.0357, 1.0000])
    """
    slope, _ = _symmetric_slope(x, scale, quant_min, quant_max, axis)
    sign = _broadcast(scale.sign(), x, axis).to(slope.dtype)
    return (slope.mul_(sign / (quant_max - quant_min)),)


def fake_quantize_asymmetric(x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int) -> Tensor:
    """Quantize and dequantize on a grid between two ends, tuned so that zero lies on it.

    Args:
        x: Values of any floating-point type; half types are computed in float32.
        input_low: Lower end of the range; ``[1]`` for `axis` -1, else as many values as `x` has along `axis`.
        input_range: Width of the range, of the shape of `input_low`.
        levels: Number of values.
        axis: Axis of the channels, or -1 for one range per tensor.

    Returns:
        The fake-quantized values, of the shape and type of `x`.

    >>> x = torch.tensor([-9.0, -0.4, 0.6, 9.0])
    >>> fake_quantize_asymmetric(x, torch.tensor([-1.0]), torch.tensor([3.0]), 4, -1)
    tensor([-1.,  0.,  1.,  2.])
    """
    values, (low, width) = _prepare(x, (input_low, input_range), axis)
    step, zero_point, _, _ = asymmetric_grid(low, width, levels)
    ticks = values.div(step).round_().add_(zero_point).clamp_(0, levels - 1)
    return ticks.sub_(zero_point).mul_(step).to(x.dtype)


def fake_quantize_asymmetric_backward(
    grad: Tensor, x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `fake_quantize_asymmetric`.

    The tuning of the range passes gradients unchanged.

    Args:
        grad: Gradient of the result.
        x: As in the forward.
        input_low: As in the forward.
        input_range: As in the forward.
        levels: As in the forward.
        axis: As in the forward.

    Returns:
        The gradients of `x`, of `input_low` and of `input_range`, each of the type of its tensor.

    >>> x = torch.tensor([-9.0, -0.25, 0.5, 9.0])
    >>> fake_quantize_asymmetric_backward(torch.ones(4), x, torch.tensor([-1.0]), torch.tensor([3.0]), 4, -1)
    (tensor([0., 1., 1., 0.]), tensor([2.]), tensor([0.9167]))
    """
    slope, outside = _asymmetric_slope(x, input_low, input_range, levels, axis)
    grads = grad.to(slope.dtype)
    grad_x = torch.addcmul(grads, grads, outside, value=-1)
    grad_range = _sum_like(slope.mul_(grads), input_range, axis) / (levels - 1)
    grad_low = _sum_like(outside.mul_(grads), input_low, axis)
    return (
        grad_x.to(x.dtype),
        grad_low.to(input_low.dtype),
        (grad_range * input_range.sign()).to(input_range.dtype),
    )


def asymmetric_slopes(
    x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int
) -> tuple[Tensor, Tensor]:
    """Return the derivatives of each value of `fake_quantize_asymmetric` by the parameters of its range.

    Args:
        x: As in the forward.
        input_low: As in the forward.
        input_range: As in the forward.
        levels: As in the forward.
        axis: As in the forward.

    Returns:
        Those by `input_low` and by `input_range`, of the shape of `x` and in the type of the computation.

    >>> asymmetric_slopes(torch.tensor([-9.0, 0.5, 9.0]), torch.tensor([-1.0]), torch.tensor([3.0]), 4, -1)
    (tensor([1., 0., 1.]), tensor([ 0.0000, -0.1667,  1.0000]))
    """
    slope, outside = _asymmetric_slope(x, input_low, input_range, levels, axis)
    sign = _broadcast(input_range.sign(), x, axis).to(slope.dtype)
    return outside, slope.mul_(sign / (levels - 1))


def check_parameters(x: Tensor, parameters: tuple[Tensor, ...], axis: int) -> None:
    """Raise a `ValueError` unless every parameter has one value, or one per channel.

    Args:
        x: The tensor to quantize.
        parameters: Its quantizer's parameters.
        axis: Axis of the channels, or -1 for one range per tensor.
    """
    channels = 1 if axis < 0 else x.shape[axis]
    for parameter in parameters:
        if parameter.numel() != channels:
            raise ValueError(
                f"a fake quantizer of a tensor {tuple(x.shape)} with `axis` {axis} needs parameters with {channels} "
                f"values, got {tuple(parameter.shape)}"
            )


def _prepare(x: Tensor, parameters: tuple[Tensor, ...], axis: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Bring values and parameters to the type of the computation, the parameters broadcastable to the values."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, parameters[0].dtype), torch.float32)
    check_parameters(x, parameters, axis)
    return x.to(dtype), tuple(_broadcast(parameter.to(dtype), x, axis) for parameter in parameters)


def _broadcast(parameter: Tensor, x: Tensor, axis: int) -> Tensor:
    """Give a parameter the shape in which it is broadcast over the values."""
    return parameter.reshape([] if axis < 0 else [1] * axis + [x.shape[axis]] + [1] * (x.ndim - axis - 1))


def _symmetric_slope(x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int) -> tuple[Tensor, Tensor]:
    """Return the derivative by the magnitude of the scale in units of a step, and which values lie outside as 1."""
    values, (scale,) = _prepare(x, (scale,), axis)
    step, low, high = symmetric_grid(scale, quant_min, quant_max)
    above, below = _outside(values, low, high)
    ticks = values.div(step).clamp_(quant_min, quant_max)
    residual = ticks.round().sub_(ticks)  # zero outside
    steps = quant_max - quant_min
    slope = residual.add_(above, alpha=steps).add_(below, alpha=steps * quant_min / quant_max)
    return slope, above.add_(below)


def _asymmetric_slope(
    x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int
) -> tuple[Tensor, Tensor]:
    """Return the derivative by the magnitude of the width in units of a step, and which values lie outside as 1."""
    values, (tensor_low, width) = _prepare(x, (input_low, input_range), axis)
    step, zero_point, low, high = asymmetric_grid(tensor_low, width, levels)
    above, below = _outside(values, low, high)
    ticks = values.div(step).add_(zero_point).clamp_(0, levels - 1).sub_(zero_point)
    residual = ticks.round().sub_(ticks)  # zero outside
    return residual.add_(above, alpha=levels - 1), above.add_(below)


def _outside(values: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return where values lie above and below a range, as 0 and 1 in their own type.

    In eager mode on a CPU, arithmetic with such masks in place is several times faster than `torch.where`.
    """
    return (
        torch.gt(values, high, out=torch.empty_like(values)),
        torch.lt(values, low, out=torch.empty_like(values)),
    )


def _sum_like(values: Tensor, parameter: Tensor, axis: int) -> Tensor:
    """Sum over everything but the channels, into the shape of a parameter."""
    dims = [dim for dim in range(values.ndim) if dim != axis]
    total = values.sum(dim=dims) if dims else values
    return total.reshape(parameter.shape)
