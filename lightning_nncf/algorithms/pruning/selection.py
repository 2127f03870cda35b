"""Which filters to remove: masks from importance, and rates from targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["bisect_rate", "global_masks", "greedy_masks", "group_mask", "pruned_count"]


def pruned_count(total: int, rate: float, multiple: int = 8) -> int:
    """Return how many of ``total`` filters to remove so that the rest is a multiple, rounded up.

    >>> [pruned_count(n, 0.4) for n in (64, 128, 256, 512, 1024, 2048)]
    [24, 48, 96, 200, 408, 816]
    >>> pruned_count(20, 0.5), pruned_count(4, 0.4)
    (4, 0)
    """
    # The tolerance keeps 0.6 * 40 = 24.000000000000004 from becoming 32.
    remaining = math.ceil((total - total * rate) / multiple - 1e-9) * multiple
    return max(total - remaining, 0)


def group_mask(importance: Tensor, rate: float, multiple: int = 8) -> Tensor:
    """Keep the most important units of one group.

    Args:
        importance: One score per unit, [units].
        rate: Share to remove, in [0, 1).
        multiple: The number of units left is a multiple of this, rounded up.

    Returns:
        Mask, [units] of bool. Equal scores are told apart by their order, so that the number is met.

    >>> group_mask(torch.tensor([3.0, 1.0, 2.0, 4.0]), 0.5, multiple=2)
    tensor([ True, False, False,  True])
    """
    count = min(pruned_count(importance.numel(), rate, multiple), importance.numel() - 1)
    mask = torch.ones(importance.numel(), dtype=torch.bool)
    mask[torch.argsort(importance.detach().cpu(), stable=True)[:count]] = False
    return mask


def global_masks(importance: Sequence[Tensor], rate: float) -> list[Tensor]:
    """Remove the least important units of all groups together.

    Args:
        importance: One score per unit for each group, comparable between groups.
        rate: Share of all units to remove, in [0, 1).

    >>> [mask.tolist() for mask in global_masks([torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0])], 0.5)]
    [[False, True], [False, True]]
    """
    scores = torch.cat([each.detach().cpu() for each in importance])
    kept = torch.ones(scores.numel(), dtype=torch.bool)
    kept[torch.argsort(scores, stable=True)[: int(rate * scores.numel())]] = False
    return list(torch.split(kept, [each.numel() for each in importance]))


def greedy_masks(
    importance: Sequence[Tensor], met: Callable[[list[Tensor]], bool], limit: float = 0.9
) -> list[Tensor] | None:
    """Remove units of all groups one by one, the least important first, until a target is met.

    Args:
        importance: One score per unit for each group.
        met: Tells of masks whether they meet the target; once met, fewer units left meet it too.
        limit: Share of a group that may go at most.

    Returns:
        The masks, or nothing if all that may go does not meet the target.

    >>> masks = greedy_masks([torch.tensor([1.0, 4.0, 2.0])], lambda masks: masks[0].sum() <= 2)
    >>> masks[0].tolist()
    [False, True, True]
    """
    order = sorted(
        ((float(score), g, u) for g, scores in enumerate(importance) for u, score in enumerate(scores.tolist())),
    )
    left = [math.floor(limit * scores.numel()) for scores in importance]
    removable: list[tuple[int, int]] = []
    for _, group, unit in order:
        if left[group] > 0:
            left[group] -= 1
            removable.append((group, unit))

    def masks(count: int) -> list[Tensor]:
        found = [torch.ones(scores.numel(), dtype=torch.bool) for scores in importance]
        for group, unit in removable[:count]:
            found[group][unit] = False
        return found

    if not met(masks(len(removable))):
        return None
    low, high = 0, len(removable)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if met(masks(middle)) else (middle + 1, high)
    return masks(low)


def bisect_rate(met: Callable[[float], bool], high: float = 1.0, tolerance: float = 0.01) -> float | None:
    """Return the smallest rate, up to a tolerance, that meets a target.

    Args:
        met: Tells whether a rate meets the target; once met, larger rates meet it too.
        high: Largest rate to try.
        tolerance: Largest distance to the smallest rate.

    Returns:
        The rate, or nothing if the largest does not meet the target.

    >>> round(bisect_rate(lambda rate: rate >= 0.3), 2)
    0.3
    """
    if not met(high):
        return None
    low = 0.0
    if met(low):
        return low
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (low, middle) if met(middle) else (middle, high)
    return high
