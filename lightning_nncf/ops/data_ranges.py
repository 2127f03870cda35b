"""Ranges of data: learned through the weights of the convolution that reads the data.

A network's input needs no gradient, and the first convolution computes none. Once that input is fake-quantized with a
range that learns, it does, only to sum it up: for a range parameter ``r`` the gradient is the sum of ``dL/dx * dx/dr``
over the quantized input ``x``. Of few channels and many pixels, ``dL/dx`` is the most expensive gradient of a network.
A convolution is linear in its input and in its weights, so the sum equals that of ``w * dL/dw`` with ``dx/dr`` as the
input: a gradient of weights, which is 4 to 5 times cheaper there (3 channels, 7x7, 2 threads).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_nncf.ops import dispatch
from lightning_nncf.ops.rebuilding import rebuild_input

__all__ = ["is_quantized_data", "learn_through_weight"]

_kept_tensors_hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks


def is_quantized_data(x: Tensor) -> bool:
    """Return whether values are fake-quantized from data, by a range that learns.

    Only where `learn_through_weight` is known to pay and to be as exact, in single or double precision on a CPU, and
    where nobody decides what autograd keeps (activation checkpointing).

    Args:
        x: The values.

    >>> from lightning_nncf.ops import fake_quantize_symmetric
    >>> scale = torch.ones(1, requires_grad=True)
    >>> is_quantized_data(fake_quantize_symmetric(torch.rand(1, 3, 8, 8), scale, 0, 255, -1))
    True
    >>> is_quantized_data(fake_quantize_symmetric(torch.rand(1, requires_grad=True), scale, 0, 255, -1))
    False
    """
    node: Any = x.grad_fn
    return (
        dispatch.slopes_of(node) is not None
        and node.next_functions[0][0] is None
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and _kept_tensors_hooks(True) is None
    )


def learn_through_weight(result: Tensor, x: Tensor) -> Tensor | None:
    """Let the range of quantized data learn from what a convolution made of the data.

    Args:
        result: What the convolution made of ``x.detach()``, changed by no operation since.
        x: The quantized data, see `is_quantized_data`.

    Returns:
        The result, of which the range now has its gradient; ``None`` if it is not that of a single convolution.

    >>> from lightning_nncf.ops import fake_quantize_symmetric
    >>> layer, scale = torch.nn.Conv2d(3, 8, 3), torch.ones(1, requires_grad=True)
    >>> x = fake_quantize_symmetric(torch.rand(1, 3, 8, 8), scale, 0, 255, -1)
    >>> y = learn_through_weight(layer(x.detach()), x)
    >>> y.sum().backward()
    >>> scale.grad.shape
    torch.Size([1])
    """
    node: Any = result.grad_fn
    if type(node).__name__ != "ConvolutionBackward0" or node._saved_transposed:
        return None
    if node._saved_input.data_ptr() != x.data_ptr() or node._saved_weight.dtype != x.dtype:
        return None
    quantizer: Any = x.grad_fn
    data, *ranges = quantizer.saved_tensors
    slopes, settings = dispatch.slopes_of(quantizer), quantizer.settings
    convolution = (
        node._saved_stride, node._saved_padding, node._saved_dilation,
        False, node._saved_output_padding, node._saved_groups,
    )  # fmt: skip
    learned: Tensor = _Learned.apply(result, slopes, settings, convolution, data, node._saved_weight, *ranges)
    rebuild_input(node, quantizer)
    return learned


class _Learned(torch.autograd.Function):
    """Hands the gradient of a convolution on and computes that of the range of its input."""

    @staticmethod
    def forward(
        ctx: Any,
        result: Tensor,
        slopes: Callable[..., tuple[Tensor, ...]],
        settings: tuple[int, ...],
        convolution: tuple[Any, ...],
        data: Tensor,
        weight: Tensor,
        *ranges: Tensor,
    ) -> Tensor:
        ctx.mark_dirty(result)
        ctx.save_for_backward(data, weight, *ranges)
        ctx.slopes, ctx.settings, ctx.convolution = slopes, settings, convolution
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        of_ranges = _range_gradients(ctx, grad)
        # Where a second derivative may be asked for, a single one comes without its tuple.
        of_ranges = (of_ranges,) if isinstance(of_ranges, Tensor) else of_ranges
        return grad, None, None, None, None, None, *of_ranges


@once_differentiable
def _range_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, ...] | Tensor:
    data, weight, *ranges = ctx.saved_tensors
    *_, groups = ctx.convolution
    axis = ctx.settings[-1]
    gradients = []
    for slope, parameter in zip(ctx.slopes(data, *ranges, *ctx.settings), ranges, strict=True):
        _, of_weight, _ = torch.ops.aten.convolution_backward(
            grad, slope.to(weight.dtype), weight, None, *ctx.convolution, (False, True, False)
        )
        shares = of_weight.mul_(weight)
        if axis >= 0:
            shares = shares.reshape(groups, shares.shape[0] // groups, shares.shape[1], -1).sum((1, 3))
        else:
            shares = shares.sum()
        gradients.append(shares.reshape(parameter.shape).to(parameter.dtype))
    return tuple(gradients)
