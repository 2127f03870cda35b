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
    "STEP",
    "binary_mask_ste",
    "density",
    "follow_density",
    "rb_loss",
    "root_mean_square",
    "step_logits",
]

INITIAL_LOGIT = math.log(0.99 / 0.01)
"""Logit with which every weight starts: kept with probability 0.99."""
STEP = 0.05
"""Root mean square of the moves of logits in one step."""


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


@torch.no_grad()
def density(logits: Sequence[Tensor]) -> Tensor:
    """Return the share of weights that are kept without noise, shape [], in float32.

    >>> density([torch.tensor([1.0, -1.0]), torch.tensor([2.0, 3.0])])
    tensor(0.7500)
    """
    kept = torch.stack([torch.count_nonzero(tensor > 0) for tensor in logits]).sum()
    return (kept.double() / sum(tensor.numel() for tensor in logits)).float()


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


def root_mean_square(gradients: Sequence[Tensor]) -> float:
    """Return the root of the mean square of all values together; not finite if one of them is not.

    >>> round(root_mean_square([torch.tensor([1.0, 1.0]), torch.tensor([-1.0, 1.0])]), 4)
    1.0
    """
    norms = torch.stack([torch.linalg.vector_norm(tensor) for tensor in gradients]).double()
    return math.sqrt(float(norms.square().sum()) / sum(tensor.numel() for tensor in gradients))


def step_logits(
    logits: Sequence[Tensor], gradients: Sequence[Tensor], scale: float, *, rate: float = STEP, limit: float = 5.0
) -> None:
    """Move logits against their gradients, in place, whatever the scale of the gradients.

    Gradients are divided by the root of their mean square over all layers: those of single masks are so small that
    a learning rate made for weights would never move them, and steps of one size for all (Adam) would move logits that
    started equal all at once.

    Args:
        logits: Logits, one tensor per layer.
        gradients: Their gradients, overwritten.
        scale: `root_mean_square` of the gradients.
        rate: Root mean square of the moves.
        limit: Largest multiple of ``rate`` that a logit moves.

    >>> logits = [torch.tensor([1.0, 1.0])]
    >>> step_logits(logits, [torch.tensor([1e-9, -1e-9])], scale=1e-9)
    >>> logits[0]
    tensor([0.9500, 1.0500])
    """
    if not math.isfinite(scale) or scale == 0:
        return
    for tensor, gradient in zip(logits, gradients, strict=True):
        # First to the size of 1, for tiny gradients have tiny scales whose inverse may be too large.
        tensor.sub_(gradient.div_(scale).clamp_(-limit, limit), alpha=rate)


def follow_density(
    logits: Sequence[Tensor],
    weights: Sequence[Tensor],
    target: float,
    *,
    speed: float = 0.02,
    tolerance: float = 0.002,
) -> None:
    """Drop or bring back the least certain weights until the density is the target, in place.

    This solves the loss on the density exactly, approached with a limited speed. Weights that change sides get a logit
    that is as sure as the initial one, so that the noise of training stays small; among logits that are about equal
    the weights' magnitude decides.

    Args:
        logits: Logits, one tensor per layer.
        weights: Weights of each layer; only the ratio of their magnitude to its mean counts.
        target: Share to keep.
        speed: Share of all weights that change sides at most.
        tolerance: Distance of the density from the target that is left as it is.

    >>> logits = [torch.full((4,), 4.0)]
    >>> follow_density(logits, [torch.tensor([0.1, -0.4, 0.3, 0.2])], 0.5, speed=1.0)
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
    dropping = surplus > 0
    keys = [_keys(tensor, weight, dropping) for tensor, weight in zip(logits, weights, strict=True)]
    threshold = kth_smallest(keys, moves - 1)
    side = -INITIAL_LOGIT if dropping else INITIAL_LOGIT
    before = [key < threshold for key in keys]
    ties = moves - sum(int(torch.count_nonzero(moved)) for moved in before)
    for tensor, key, moved in zip(logits, keys, before, strict=True):
        tensor.masked_fill_(moved, side)
        equal = (key == threshold).nonzero()[:ties]
        tensor[tuple(equal.T)] = side
        ties -= len(equal)


def _keys(logits: Tensor, weight: Tensor, dropping: bool) -> Tensor:
    """Return in which order weights change sides, infinity for those on the right side."""
    keys = weight.detach().to(logits.dtype).abs()
    # In place, for the tensors of a large network are larger than the cache.
    keys.div_(keys.mean().clamp(min=torch.finfo(keys.dtype).tiny)).add_(logits)
    return keys.masked_fill_(logits <= 0, math.inf) if dropping else keys.neg_().masked_fill_(logits > 0, math.inf)
