"""Masks by magnitude and by n:m pattern, as pure functions of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_nncf.algorithms.sparsity.selection import kth_smallest

__all__ = ["Importance", "importance", "magnitude_masks", "magnitude_threshold", "n_m_mask", "n_m_masks"]

Importance = Literal["normed_abs", "abs"]


def importance(weight: Tensor, kind: Importance = "normed_abs") -> Tensor:
    """Return how much each weight matters: its absolute value, or that divided by the tensor's L2 norm.

    Args:
        weight: Weights of one layer.
        kind: ``normed_abs`` makes layers of different scale comparable.

    >>> importance(torch.tensor([3.0, -4.0]))
    tensor([0.6000, 0.8000])
    """
    # In half types importances would be equal by the thousands.
    values = weight.detach().abs() if weight.dtype == torch.float64 else weight.detach().abs().float()
    if kind == "abs":
        return values
    norm = torch.linalg.vector_norm(values)
    return values.div_(norm) if norm > 0 else values


def magnitude_threshold(importances: Sequence[Tensor], level: float) -> float:
    """Return the importance at and below which weights are dropped to reach a level over all layers.

    It is the value at position ``int((N - 1) * level)`` of all N importances in ascending order; at level 0 nothing is
    dropped and the threshold is -1.

    Args:
        importances: One tensor per layer.
        level: Share of weights to drop, in [0, 1).

    >>> magnitude_threshold([torch.tensor([0.1, 0.4]), torch.tensor([0.2, 0.3])], 0.5)
    0.20000000298023224
    """
    if level <= 0:
        return -1.0
    total = sum(tensor.numel() for tensor in importances)
    return float(kth_smallest(importances, int((total - 1) * level)))


def magnitude_masks(importances: Sequence[Tensor], level: float, threshold: float | None = None) -> list[Tensor]:
    """Return masks that keep the weights whose importance exceeds the threshold of a level.

    Among weights exactly at the threshold just as many are dropped as the level asks for, the first ones first, so
    that the level is met within one weight even where many are equal.

    Args:
        importances: One tensor per layer.
        level: Share of weights to drop, in [0, 1).
        threshold: `magnitude_threshold` of the same importances and level, if it is known already.

    Returns:
        Boolean masks of the same shapes; true keeps.

    >>> magnitude_masks([torch.tensor([0.1, 0.4]), torch.tensor([0.2, 0.3])], 0.5)
    [tensor([False,  True]), tensor([False,  True])]
    """
    threshold = magnitude_threshold(importances, level) if threshold is None else threshold
    masks = [tensor > threshold for tensor in importances]
    if level <= 0:
        return masks
    total = sum(mask.numel() for mask in masks)
    dropped = total - sum(int(torch.count_nonzero(mask)) for mask in masks)
    surplus = dropped - (int((total - 1) * level) + 1)
    for tensor, mask in zip(reversed(importances), reversed(masks), strict=True):
        if surplus <= 0:
            break
        # Contiguous, for the masks are written through flat views.
        tied = (tensor == threshold).reshape(-1).nonzero().flatten()[-surplus:]
        mask.view(-1)[tied] = True
        surplus -= len(tied)
    return masks


def n_m_mask(values: Tensor, n: int, m: int, axis: int) -> Tensor:
    """Return a mask that keeps the n largest of every m values in a row along an axis.

    Args:
        values: Importances; the size of the axis is a multiple of ``m``.
        n: How many to keep.
        m: Length of a group.
        axis: Axis of the input channels.

    Returns:
        Boolean mask of the same shape; of equal values the first are kept.

    Raises:
        ValueError: The axis cannot be divided into groups.

    >>> n_m_mask(torch.tensor([[0.1, 0.4, 0.3, 0.2]]), 2, 4, axis=1)
    tensor([[False,  True,  True, False]])
    """
    groups = _grouped(values, m, axis)
    order = groups.sort(dim=-1, descending=True, stable=True).indices
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :n], value=True)
    return _ungrouped(kept, values, axis)


def n_m_masks(importances: Sequence[Tensor], n: int, m: int, axes: Sequence[int], share: float = 1.0) -> list[Tensor]:
    """Return n:m masks of several layers, for a share of all groups.

    A group that is not yet concerned keeps all its weights. First come the groups that lose least.

    Args:
        importances: One tensor per layer.
        n: How many weights of a group to keep.
        m: Length of a group.
        axes: Axis of the input channels of each layer.
        share: Share of groups to make sparse, in [0, 1].

    >>> n_m_masks([torch.tensor([[0.1, 0.4], [0.3, 0.2]])], 1, 2, [1], share=0.5)
    [tensor([[False,  True],
            [ True,  True]])]
    """
    masks = [n_m_mask(tensor, n, m, axis) for tensor, axis in zip(importances, axes, strict=True)]
    if share >= 1:
        return masks
    losses = [
        (_grouped(tensor, m, axis) * ~_grouped(mask, m, axis)).sum(-1, keepdim=True)
        for tensor, mask, axis in zip(importances, masks, axes, strict=True)
    ]
    chosen = [~kept for kept in magnitude_masks(losses, share)]
    return [
        _ungrouped(_grouped(mask, m, axis) | ~concerned, mask, axis)
        for mask, concerned, axis in zip(masks, chosen, axes, strict=True)
    ]


def _grouped(values: Tensor, m: int, axis: int) -> Tensor:
    """Return the values with the groups of ``m`` as the last axis."""
    if values.shape[axis] % m:
        raise ValueError(f"axis {axis} of shape {list(values.shape)} cannot be divided into groups of {m}")
    last = values.movedim(axis, -1)
    return last.reshape(*last.shape[:-1], -1, m)


def _ungrouped(groups: Tensor, like: Tensor, axis: int) -> Tensor:
    """Undo `_grouped`."""
    return groups.flatten(-2).movedim(-1, axis).reshape(like.shape).contiguous()
