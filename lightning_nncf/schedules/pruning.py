"""Levels of pruning by epoch: exponential, with bias, and at once."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = [
    "PRUNING_SCHEDULES",
    "baseline_level",
    "bias_coefficients",
    "exponential_level",
    "exponential_with_bias_level",
]


def baseline_level(epoch: int, initial: float, target: float, steps: int) -> float:
    """Return the target from the first epoch on.

    Args:
        epoch: Epoch since the warmup ended, from 0.
        initial: Level before; not used.
        target: Level to reach.
        steps: Not used.

    >>> baseline_level(0, 0.0, 0.5, 100)
    0.5
    """
    return target


def exponential_level(epoch: int, initial: float, target: float, steps: int) -> float:
    """Let the share of filters that stay fall by the same factor in every epoch.

    Args:
        epoch: Epoch since the warmup ended, from 0.
        initial: Level in epoch 0.
        target: Level from epoch ``steps - 1`` on, below 1.
        steps: Number of epochs.

    >>> [round(exponential_level(epoch, 0.1, 0.4, 15), 4) for epoch in (0, 1, 13, 14, 20)]
    [0.1, 0.1257, 0.3824, 0.4, 0.4]
    """
    if steps <= 1 or epoch >= steps - 1:
        return target
    density: float = (1 - initial) * ((1 - target) / (1 - initial)) ** (epoch / (steps - 1))
    return min(1 - density, target)


def exponential_with_bias_level(epoch: int, initial: float, target: float, steps: int) -> float:
    """Rise fast and then level off: three quarters of the target are reached after an eighth of the epochs.

    The level is ``a * exp(-k * epoch) + b``.

    Args:
        epoch: Epoch since the warmup ended, from 0.
        initial: Level in epoch 0.
        target: Level from epoch ``steps - 1`` on, more than 4/3 of ``initial``.
        steps: Number of epochs.

    >>> [round(exponential_with_bias_level(epoch, 0.1, 0.7, 5), 7) for epoch in range(6)]
    [0.1, 0.6489741, 0.6956869, 0.6996618, 0.7, 0.7]
    """
    if steps <= 1 or epoch >= steps - 1:
        return target
    a, b, k = bias_coefficients(initial, target, steps)
    return min(a * math.exp(-k * epoch) + b, target)


def bias_coefficients(initial: float, target: float, steps: int) -> tuple[float, float, float]:
    """Return ``a``, ``b`` and ``k`` of `exponential_with_bias_level`.

    They follow from the levels at epochs 0, ``(steps - 1) / 8`` and ``steps - 1``. With
    ``z = exp(-k * (steps - 1) / 8)`` and ``c`` the share of the way to go at an eighth of the time, ``z - c *
    z**8 + c - 1 = 0``; its root below 1 is
    found by bisection.

    Raises:
        ValueError: Three quarters of the target are not above the initial level.

    >>> [round(value, 4) for value in bias_coefficients(0.0, 0.5, 20)]
    [-0.5, 0.5, 0.5837]
    """
    if not initial < 0.75 * target:
        raise ValueError(
            f"with exponential_with_bias the initial level must be below three quarters of the target, got {initial} "
            f"and {target}"
        )
    share = (0.75 * target - initial) / (target - initial)
    # The root lies below the maximum of z - share * z**8; z = 1 is the other root.
    low, high = 0.0, (1 / (8 * share)) ** (1 / 7)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if middle - share * middle**8 + share - 1 > 0 else (middle, high)
    k = -8 * math.log((low + high) / 2) / (steps - 1)
    a = (target - initial) / (math.exp(-k * (steps - 1)) - 1)
    return a, initial - a, k


PRUNING_SCHEDULES: dict[str, Callable[[int, float, float, int], float]] = {
    "baseline": baseline_level,
    "exponential": exponential_level,
    "exponential_with_bias": exponential_with_bias_level,
}
