"""A level that rises whenever the network has followed it."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["AdaptiveLevel", "adaptive_level"]


@dataclass(frozen=True, kw_only=True)
class AdaptiveLevel:
    """Level of an adaptive schedule, and for how many epochs the network has been there.

    Args:
        level: The level asked for.
        reached: Epochs at whose beginning it was reached, since it last rose.
    """

    level: float
    reached: int = 0


def adaptive_level(
    state: AdaptiveLevel,
    current: float,
    target: float,
    *,
    patience: int = 1,
    step: float = 0.05,
    tolerance: float = 0.03,
) -> AdaptiveLevel:
    """Return the state for the next epoch.

    Args:
        state: State of the epoch that ends.
        current: Level that the network has really reached.
        target: Level at which it stops.
        patience: Epochs in which the level must be reached before it rises.
        step: By how much it rises.
        tolerance: How much less than the level counts as reached.

    >>> adaptive_level(AdaptiveLevel(level=0.2), current=0.18, target=0.22)
    AdaptiveLevel(level=0.22, reached=0)
    >>> adaptive_level(AdaptiveLevel(level=0.2), current=0.1, target=0.5)
    AdaptiveLevel(level=0.2, reached=0)
    """
    if current < state.level - tolerance:
        return state
    reached = state.reached + 1
    if reached < patience:
        return replace(state, reached=reached)
    return AdaptiveLevel(level=min(state.level + step, target))
