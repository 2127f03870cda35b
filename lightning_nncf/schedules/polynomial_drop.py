"""A learning rate that falls to zero along a power of the epochs left."""

from __future__ import annotations

__all__ = ["polynomial_drop"]


def polynomial_drop(epoch: float, start: float, duration: float, *, power: float = 2.1) -> float:
    """Return the factor on a learning rate.

    Args:
        epoch: Epochs done, with the fraction of the current one.
        start: Epoch in which the drop begins; before it the factor is 1.
        duration: Epochs until the factor is 0.
        power: Exponent.

    >>> [round(polynomial_drop(epoch, start=60, duration=30), 4) for epoch in (0, 60, 75, 90)]
    [1.0, 1.0, 0.2333, 0.0]
    """
    if epoch < start:
        return 1.0
    left = max(start + duration - epoch, 0.0) / duration if duration else 0.0
    return float(left**power)
