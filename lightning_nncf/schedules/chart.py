"""A course of levels as text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["chart"]

_EIGHTHS = " ▏▎▍▌▋▊▉"
_ROWS = 40


def chart(levels: Sequence[float], frozen: int | None = None, *, width: int = 50) -> str:
    """Draw one bar per epoch; of long courses only some epochs are drawn, the last one included.

    Args:
        levels: Level in each epoch, in [0, 1].
        frozen: First epoch in which nothing changes any more.
        width: Characters of a level of 1.

    >>> print(chart([0.0, 0.25, 0.5], frozen=2, width=8))
    epoch   level
        0  0.0000
        1  0.2500  ██
        2  0.5000  ████ frozen
    """
    stride = max(-(-len(levels) // _ROWS), 1)
    shown = sorted({*range(0, len(levels), stride), *range(len(levels) - 1, len(levels))})
    lines = ["epoch   level"]
    for epoch in shown:
        eighths = round(levels[epoch] * width * 8)
        bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
        note = " frozen" if frozen is not None and epoch >= frozen else ""
        lines.append(f"{epoch:5d}  {levels[epoch]:.4f}  {bar}{note}".rstrip())
    return "\n".join(lines)
