"""Importance of filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = ["IMPORTANCE", "Importance", "geometric_median", "group_importance", "l1_norm", "l2_norm"]

Importance = Literal["L1", "L2", "geometric_median"]


def l1_norm(filters: Tensor) -> Tensor:
    """Return the sum of magnitudes of each filter, [F, N] -> [F].

    >>> l1_norm(torch.tensor([[1.0, -2.0], [0.0, 0.0]]))
    tensor([3., 0.])
    """
    return filters.abs().sum(dim=1)


def l2_norm(filters: Tensor) -> Tensor:
    """Return the Euclidean norm of each filter, [F, N] -> [F].

    >>> l2_norm(torch.tensor([[3.0, -4.0]]))
    tensor([5.])
    """
    norms: Tensor = torch.linalg.vector_norm(filters, dim=1)
    return norms


def geometric_median(filters: Tensor) -> Tensor:
    """Return the sum of each filter's distances to all others, [F, N] -> [F].

    A filter near the others can be replaced by them (He et al., "Filter Pruning via Geometric Median", CVPR 2019).

    >>> geometric_median(torch.tensor([[0.0], [3.0], [4.0]]))
    tensor([7., 4., 5.])
    """
    return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)


IMPORTANCE: dict[Importance, Callable[[Tensor], Tensor]] = {
    "L1": l1_norm,
    "L2": l2_norm,
    "geometric_median": geometric_median,
}


def group_importance(scores: Sequence[Tensor], units: Sequence[Tensor], count: int) -> Tensor:
    """Add up the scores of all filters of each unit.

    Args:
        scores: Scores of the filters of each layer, each [F].
        units: The unit that each filter belongs to, each [F].
        count: Number of units.

    Returns:
        Importance per unit, [count].

    >>> group_importance([torch.tensor([1.0, 2.0])], [torch.tensor([1, 1])], 2)
    tensor([0., 3.])
    """
    total = torch.zeros(count, dtype=scores[0].dtype, device=scores[0].device)
    for score, unit in zip(scores, units, strict=True):
        total.index_add_(0, unit.to(score.device), score)
    return total
