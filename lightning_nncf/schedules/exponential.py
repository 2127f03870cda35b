"""Exponential course of a level: the density falls by the same factor in every epoch."""

from __future__ import annotations

__all__ = ["exponential_level"]


def exponential_level(progress: float, initial: float, target: float) -> float:
    """Return the level after a share of the way, the density ``1 - level`` falling geometrically.

    Args:
        progress: Share of the way; what lies outside [0, 1] counts as its nearer end.
        initial: Level at 0, below 1.
        target: Level at 1, below 1.

    >>> [round(exponential_level(epoch / 2, 0.2, 0.6), 7) for epoch in range(3)]
    [0.2, 0.4343146, 0.6]
    """
    share = min(max(progress, 0.0), 1.0)
    if share == 1.0:
        return target
    density = (1.0 - initial) * ((1.0 - target) / (1.0 - initial)) ** share
    return float(1.0 - density)
