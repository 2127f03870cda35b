"""The operators ``torch.ops.lightning_nncf.*``: schemas, fake kernels, autograd.

The formulas are the kernels of every device that has no kernel of its own. The first call of one of them on a kind of
device loads native kernels for it, if there are any.

There is no autocast rule on purpose: autocast must reach neither the values (a float32 weight is quantized in
float32, a bfloat16 activation stays one) nor the ranges (always used as they are stored).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_nncf.ops import native, reference

__all__ = ["NAMESPACE", "define", "in_layout_of"]

NAMESPACE = "lightning_nncf"

_SCHEMAS = {
    "fake_quantize_symmetric": "(Tensor x, Tensor scale, int quant_min, int quant_max, int axis) -> Tensor",
    "fake_quantize_symmetric_backward": (
        "(Tensor grad, Tensor x, Tensor scale, int quant_min, int quant_max, int axis) -> (Tensor, Tensor)"
    ),
    "fake_quantize_symmetric_backward_": (
        "(Tensor(a!) grad, Tensor x, Tensor scale, int quant_min, int quant_max, int axis) -> Tensor"
    ),
    "fake_quantize_asymmetric": ("(Tensor x, Tensor input_low, Tensor input_range, int levels, int axis) -> Tensor"),
    "fake_quantize_asymmetric_backward": (
        "(Tensor grad, Tensor x, Tensor input_low, Tensor input_range, int levels, int axis)"
        " -> (Tensor, Tensor, Tensor)"
    ),
    "fake_quantize_asymmetric_backward_": (
        "(Tensor(a!) grad, Tensor x, Tensor input_low, Tensor input_range, int levels, int axis) -> (Tensor, Tensor)"
    ),
}


def in_layout_of(x: Tensor, result: Tensor) -> Tensor:
    """Return the result in the strides that the fake kernel promises: those of ``empty_like``."""
    if result.stride() == x.stride() or (result.is_contiguous() and x.is_contiguous()):
        return result
    promised = torch.empty_like(x)
    return result if result.stride() == promised.stride() else promised.copy_(result)


def _symmetric(x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int) -> Tensor:
    return in_layout_of(x, reference.fake_quantize_symmetric(x, scale, quant_min, quant_max, axis))


def _asymmetric(x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int) -> Tensor:
    return in_layout_of(x, reference.fake_quantize_asymmetric(x, input_low, input_range, levels, axis))


def _symmetric_backward(
    grad: Tensor, x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int
) -> tuple[Tensor, Tensor]:
    grad_x, grad_scale = reference.fake_quantize_symmetric_backward(grad, x, scale, quant_min, quant_max, axis)
    return in_layout_of(x, grad_x), in_layout_of(scale, grad_scale)


def _asymmetric_backward(
    grad: Tensor, x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, grad_low, grad_range = reference.fake_quantize_asymmetric_backward(
        grad, x, input_low, input_range, levels, axis
    )
    return in_layout_of(x, grad_x), in_layout_of(input_low, grad_low), in_layout_of(input_range, grad_range)


def _symmetric_backward_in_place(
    grad: Tensor, x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int
) -> Tensor:
    grad_x, grad_scale = _symmetric_backward(grad, x, scale, quant_min, quant_max, axis)
    grad.copy_(grad_x)
    return grad_scale


def _asymmetric_backward_in_place(
    grad: Tensor, x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int
) -> tuple[Tensor, Tensor]:
    grad_x, grad_low, grad_range = _asymmetric_backward(grad, x, input_low, input_range, levels, axis)
    grad.copy_(grad_x)
    return grad_low, grad_range


def _fake_symmetric(x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int) -> Tensor:
    return torch.empty_like(x)


def _fake_asymmetric(x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int) -> Tensor:
    return torch.empty_like(x)


def _fake_symmetric_backward(
    grad: Tensor, x: Tensor, scale: Tensor, quant_min: int, quant_max: int, axis: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(scale)


def _fake_asymmetric_backward(
    grad: Tensor, x: Tensor, input_low: Tensor, input_range: Tensor, levels: int, axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(input_low), torch.empty_like(input_range)


def _save_symmetric(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, *ctx.settings = inputs
    ctx.save_for_backward(x, scale)


def _save_asymmetric(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, input_low, input_range, *ctx.settings = inputs
    ctx.save_for_backward(x, input_low, input_range)


def _differentiate_symmetric(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.lightning_nncf.fake_quantize_symmetric_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return (*grads, None, None, None)


def _differentiate_asymmetric(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.lightning_nncf.fake_quantize_asymmetric_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return (*grads, None, None)


_library: Any = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
_operators = getattr(torch.ops, NAMESPACE)


def define(
    name: str,
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    backward: Callable[..., Any] | None = None,
    save: Callable[..., None] | None = None,
    inner: bool = False,
) -> None:
    """Define an operator of the namespace.

    Args:
        name: Its name.
        schema: Arguments and results, as PyTorch writes them.
        kernel: The formula, for every device without a kernel of its own; its results have the strides of `fake`'s.
        fake: Gives results of the right shape, type and strides without computing them.
        backward: The gradients of all arguments from the context and those of the results; none for an operator that
            is not differentiated.
        save: Puts into the context what `backward` needs.
        inner: Called by nobody but a `torch.autograd.Function`: autograd is passed by, and its result has no gradient.
    """

    def load_or_compute(*arguments: Any) -> Any:
        device = arguments[0].device.type
        if device not in native.prepared and native.backend(device) == "native":
            return getattr(_operators, name)(*arguments)
        return kernel(*arguments)

    _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, load_or_compute, "CompositeExplicitAutograd")
    if inner:
        _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
    if backward is not None:
        torch.library.register_autograd(f"{NAMESPACE}::{name}", backward, setup_context=save, lib=_library)


define(
    "fake_quantize_symmetric",
    _SCHEMAS["fake_quantize_symmetric"],
    _symmetric,
    _fake_symmetric,
    backward=_differentiate_symmetric,
    save=_save_symmetric,
)
define(
    "fake_quantize_symmetric_forward",
    _SCHEMAS["fake_quantize_symmetric"],
    _symmetric,
    _fake_symmetric,
    inner=True,
)
define(
    "fake_quantize_symmetric_backward",
    _SCHEMAS["fake_quantize_symmetric_backward"],
    _symmetric_backward,
    _fake_symmetric_backward,
)
define(
    "fake_quantize_symmetric_backward_",
    _SCHEMAS["fake_quantize_symmetric_backward_"],
    _symmetric_backward_in_place,
    lambda grad, x, scale, *settings: torch.empty_like(scale),
    inner=True,
)
define(
    "fake_quantize_asymmetric",
    _SCHEMAS["fake_quantize_asymmetric"],
    _asymmetric,
    _fake_asymmetric,
    backward=_differentiate_asymmetric,
    save=_save_asymmetric,
)
define(
    "fake_quantize_asymmetric_forward",
    _SCHEMAS["fake_quantize_asymmetric"],
    _asymmetric,
    _fake_asymmetric,
    inner=True,
)
define(
    "fake_quantize_asymmetric_backward",
    _SCHEMAS["fake_quantize_asymmetric_backward"],
    _asymmetric_backward,
    _fake_asymmetric_backward,
)
define(
    "fake_quantize_asymmetric_backward_",
    _SCHEMAS["fake_quantize_asymmetric_backward_"],
    _asymmetric_backward_in_place,
    lambda grad, x, input_low, input_range, *settings: (torch.empty_like(input_low), torch.empty_like(input_range)),
    inner=True,
)
