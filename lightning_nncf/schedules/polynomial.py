"""Polynomial course of a level."""

from __future__ import annotations

__all__ = ["polynomial_level"]


def polynomial_level(
    progress: float, initial: float, target: float, *, power: float = 0.9, concave: bool = True
) -> float:
    """Return the level after a share of the way from the initial to the target level.

    Concave levels rise fast at first and slowly at the end; convex ones the other way round.

    Args:
        progress: Share of the way; what lies outside [0, 1] counts as its nearer end.
        initial: Level at 0.
        target: Level at 1.
        power: Exponent; 1 is a straight line.
        concave: Which way the curve bends for a power above 1.

    >>> [round(polynomial_level(epoch / 3, 0.1, 0.5, power=2), 4) for epoch in range(4)]
    [0.1, 0.3222, 0.4556, 0.5]
    """
    share = min(max(progress, 0.0), 1.0)
    if concave:
        return float(target - (target - initial) * (1.0 - share) ** power)
    return float(initial + (target - initial) * share**power)
