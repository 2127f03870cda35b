"""Levels that change at given epochs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

__all__ = ["multistep_level"]


def multistep_level(epoch: int, steps: Sequence[int], levels: Sequence[float]) -> float:
    """Return the level that holds in an epoch.

    Args:
        epoch: The epoch, from 0.
        steps: Epochs in which the next level begins, ascending.
        levels: One level before the first step and one from each step on.

    >>> [multistep_level(epoch, [2, 3, 4], [0.2, 0.4, 0.5, 0.6]) for epoch in range(6)]
    [0.2, 0.2, 0.4, 0.5, 0.6, 0.6]
    """
    return levels[bisect_right(steps, epoch)]
