"""Random masks with trainable odds (RB sparsity): formulas, operators, and which of them a call takes.

An element with the logit s is kept where ``sigmoid(s + logit(u)) > 0.5`` for a uniform u. The draw depends on a seed
and the position of the element alone, the same in every implementation and on every device, so that backward draws it
again instead of keeping it, and ranks with the same seed have the same mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_nncf.ops import library

__all__ = ["sample_and_mask"]

_LARGEST_LOGIT = 60.0
_LEAST_DRAW = 1e-6


def sample_and_mask(x: Tensor, logits: Tensor, seed: Tensor) -> Tensor:
    """Set elements to zero at random, each kept with probability ``sigmoid(logit)``.

    The gradient of `x` is masked alike. That of the logits goes through the sigmoid, the threshold passing it on
    unchanged (Srinivas et al. 2017).

    Args:
        x: Values of any floating-point type.
        logits: Of the shape of `x`.
        seed: One int64 value; draw a new one for every step.

    Returns:
        Values of the shape, type and strides of `x`.

    >>> x, always = torch.ones(4), torch.full((4,), 20.0)
    >>> sample_and_mask(x, always, torch.tensor([1])), sample_and_mask(x, -always, torch.tensor([1]))
    (tensor([1., 1., 1., 1.]), tensor([0., 0., 0., 0.]))
    """
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        compiled: Tensor = _Formula.apply(x, logits, seed)
        return compiled
    try:
        result: Tensor = torch.ops.lightning_nncf.sample_and_mask(x, logits, seed)
    except RuntimeError:
        _odds(x, logits, seed)  # says what does not fit
        raise
    return result


def uniform(count: int, seed: Tensor) -> Tensor:
    """Return the draws of the first positions: float32 numbers in (0, 1), on the device of the seed.

    Args:
        count: How many.
        seed: One int64 value.

    >>> bool(((uniform(1000, torch.tensor([7])) - 0.5).mean().abs() < 0.03).all())
    True
    """
    mask = 0xFFFFFFFF
    seed = seed.reshape([])
    bits = torch.arange(count, dtype=torch.int64, device=seed.device) & mask
    for half in (seed & mask, (seed >> 32) & mask):
        bits = (bits + half) & mask
        bits = bits ^ (bits >> 16)
        bits = (bits * 0x21F0AAAD) & mask
        bits = bits ^ (bits >> 15)
        bits = (bits * 0x735A2D97) & mask
        bits = bits ^ (bits >> 15)
    return ((bits >> 9).to(torch.float32) + 0.5) * 2.0**-23


def reference_masked(x: Tensor, logits: Tensor, seed: Tensor) -> Tensor:
    """Compute `sample_and_mask` by plain PyTorch.

    Args:
        x: As there.
        logits: As there.
        seed: As there.
    """
    raised, rest = _odds(x, logits, seed)
    return torch.where(raised > rest, x, torch.zeros_like(x))


def reference_masked_backward(grad: Tensor, x: Tensor, logits: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of `sample_and_mask` by plain PyTorch.

    Args:
        grad: Gradient of the result.
        x: As there.
        logits: As there.
        seed: As there.

    Returns:
        The gradients of `x` and of `logits`, each of the type of its tensor.
    """
    raised, rest = _odds(x, logits, seed)
    share = raised / (raised + rest)
    slope = grad.to(share.dtype) * x.to(share.dtype) * (share * (1 - share))
    return torch.where(raised > rest, grad, torch.zeros_like(grad)).to(x.dtype), slope.to(logits.dtype)


def _odds(x: Tensor, logits: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``exp(logit) * u`` and ``1 - u``: their quotient is the odds of which the sigmoid is taken."""
    if x.shape != logits.shape:
        raise ValueError(f"a mask for a tensor {tuple(x.shape)} needs logits of that shape, got {tuple(logits.shape)}")
    dtype = torch.promote_types(x.dtype, torch.float32)
    draws = uniform(x.numel(), seed.to(x.device)).reshape(x.shape).to(dtype).clamp(_LEAST_DRAW, 1 - _LEAST_DRAW)
    return logits.to(dtype).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT).exp() * draws, 1 - draws


class _Formula(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor, seed: Tensor) -> Tensor:
        ctx.save_for_backward(x, logits, seed)
        return reference_masked(x, logits, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*reference_masked_backward(grad, *ctx.saved_tensors), None)


def _kernel(x: Tensor, logits: Tensor, seed: Tensor) -> Tensor:
    return library.in_layout_of(x, reference_masked(x, logits, seed))


def _kernel_backward(grad: Tensor, x: Tensor, logits: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    grad_x, grad_logits = reference_masked_backward(grad, x, logits, seed)
    return library.in_layout_of(x, grad_x), library.in_layout_of(logits, grad_logits)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*torch.ops.lightning_nncf.sample_and_mask_backward(grad, *ctx.saved_tensors), None)


library.define(
    "sample_and_mask",
    "(Tensor x, Tensor logits, Tensor seed) -> Tensor",
    _kernel,
    lambda x, logits, seed: torch.empty_like(x),
    backward=_differentiate,
    save=_save,
)
library.define(
    "sample_and_mask_backward",
    "(Tensor grad, Tensor x, Tensor logits, Tensor seed) -> (Tensor, Tensor)",
    _kernel_backward,
    lambda grad, x, logits, seed: (torch.empty_like(x), torch.empty_like(logits)),
)
