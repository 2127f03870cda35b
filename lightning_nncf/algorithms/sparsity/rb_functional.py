"""Regularization-based sparsity as pure functions: sampled masks, the loss on their number, and the logits' own step.

After C. Louizos, M. Welling, D. Kingma, "Learning Sparse Neural Networks through L0 Regularization" (2018), in the form
that NNCF gave it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_nncf.algorithms.sparsity.selection import kth_smallest

__all__ = [
    "INITIAL_LOGIT",
    "binary_mask_ste",
    "density_ste",
    "follow_density",
    "rb_loss",
    "rb_loss_gradient",
    "step_logits",
]

INITIAL_LOGIT = math.log(0.99 / 0.01)
"""Logit with which every weight starts: kept with probability 0.99."""


class _BinaryMask(torch.autograd.Function):
    """Step at 0 whose gradient is that of the logistic function."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return (logits > 0).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors
        share = torch.sigmoid(logits)
        return gradients[0] * share * (1 - share)


def binary_mask_ste(logits: Tensor) -> Tensor:
    """Return 1 where the logistic function of a logit exceeds 0.5, else 0, in the logits' dtype.

    The gradient is that of the logistic function, as if there were no threshold (straight-through).

    >>> logits = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    >>> binary_mask_ste(logits).sum().backward()
    >>> logits.grad
    tensor([0.2500, 0.1966, 0.1966])
    """
    mask: Tensor = _BinaryMask.apply(logits)
    return mask


def density_ste(logits: Sequence[Tensor]) -> Tensor:
    """Return the share of weights that are kept without noise, with the gradient of `binary_mask_ste`.

    >>> float(density_ste([torch.tensor([1.0, -1.0]), torch.tensor([2.0, 3.0])]))
    0.75
    """
    count = sum(tensor.numel() for tensor in logits)
    return torch.stack([binary_mask_ste(tensor).sum() for tensor in logits]).sum() / count


def rb_loss(density: Tensor, target: float, p: float = 0.05) -> Tensor:
    """Return the loss on the density: ``((density - target) / p) ** 2``.

    Args:
        density: Share of weights kept.
        target: Share to keep.
        p: Distance at which the loss is 1.

    >>> rb_loss(torch.tensor(1.0), 0.9)
    tensor(4.0000)
    """
    return ((density - target) / p) ** 2


def rb_loss_gradient(logits: Tensor, density: float, target: float, count: int, p: float = 0.05) -> Tensor:
    """Return the gradient of `rb_loss` of `density_ste` in closed form.

    Args:
        logits: Logits of one layer.
        density: Share of weights kept, over all layers.
        target: Share to keep.
        count: Number of weights in all layers.
        p: As in `rb_loss`.
    """
    share = torch.sigmoid(logits)
    return share * (1 - share) * (2 * (density - target) / (p * p * count))


def step_logits(logits: Sequence[Tensor], gradients: Sequence[Tensor], rate: float = 0.05, limit: float = 5.0) -> None:
    """Move logits against their gradients, in place, whatever the scale of the gradients.

    Gradients are divided by the root of their mean square over all layers: those of single masks are so small that
    a learning rate made for weights would never move them, and steps of one size for all (Adam) would move logits that
    started equal all at once.

    Args:
        logits: Logits, one tensor per layer.
        gradients: Their gradients.
        rate: Root mean square of the moves.
        limit: Largest multiple of ``rate`` that a logit moves.

    >>> logits = [torch.tensor([1.0, 1.0])]
    >>> step_logits(logits, [torch.tensor([1e-9, -1e-9])])
    >>> logits[0]
    tensor([0.9500, 1.0500])
    """
    count = sum(tensor.numel() for tensor in gradients)
    squares = torch.stack([(tensor.double() ** 2).sum() for tensor in gradients]).sum()
    scale = float(torch.sqrt(squares / count))
    if not math.isfinite(scale) or scale == 0:
        return
    for tensor, gradient in zip(logits, gradients, strict=True):
        tensor.sub_((gradient / scale).clamp_(-limit, limit).mul_(rate).to(tensor.dtype))


def follow_density(
    logits: Sequence[Tensor],
    importances: Sequence[Tensor],
    target: float,
    *,
    speed: float = 0.02,
    tolerance: float = 0.002,
) -> None:
    """Drop or bring back the least certain weights until the density is the target, in place.

    This solves the loss on the density exactly, approached with a limited speed. Weights that change sides get a logit
    that is as sure as the initial one, so that the noise of training stays small; among logits that are about equal
    the weights' importance decides.

    Args:
        logits: Logits, one tensor per layer.
        importances: Importance of the weights in each layer; only their ratio to its mean counts.
        target: Share to keep.
        speed: Share of all weights that change sides at most.
        tolerance: Distance of the density from the target that is left as it is.

    >>> logits = [torch.full((4,), 4.0)]
    >>> follow_density(logits, [torch.tensor([0.1, 0.4, 0.3, 0.2])], 0.5, speed=1.0)
    >>> (logits[0] > 0).tolist()
    [False, True, True, False]
    """
    total = sum(tensor.numel() for tensor in logits)
    kept = sum(int(torch.count_nonzero(tensor > 0)) for tensor in logits)
    surplus = kept - (total - int(total * (1 - target) + 0.5))
    if abs(surplus) <= tolerance * total and abs(surplus) != total - kept:
        return
    moves = min(abs(surplus), max(int(speed * total), 1))
    if moves == 0:
        return
    keys = [
        (tensor + value / value.mean().clamp(min=1e-12)) * (1 if surplus > 0 else -1)
        for tensor, value in zip(logits, importances, strict=True)
    ]
    candidates = [(tensor > 0) if surplus > 0 else (tensor <= 0) for tensor in logits]
    threshold = kth_smallest([key[chosen] for key, chosen in zip(keys, candidates, strict=True)], moves - 1)
    value = -INITIAL_LOGIT if surplus > 0 else INITIAL_LOGIT
    for tensor, key, chosen in zip(logits, keys, candidates, strict=True):
        tensor.masked_fill_(chosen & (key <= threshold), value)
