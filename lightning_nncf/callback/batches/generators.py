"""States of the global random generators: of Python, NumPy and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from lightning_fabric.utilities.seed import _collect_rng_states, _set_rng_states

__all__ = ["Drawn", "drawing", "passed"]

_T = TypeVar("_T")
Drawn = tuple[dict[str, Any], dict[str, Any]]
"""The states before and after something was drawn at random."""


def drawing(draw: Callable[[], _T], states: dict[str, Any] | None = None) -> tuple[_T, Drawn]:
    """Run something that may draw at random, and leave the generators as they were.

    Args:
        draw: What draws.
        states: The states to begin with. Default: those of now.

    Returns:
        What it returned, with the states before and after.
    """
    outside = _collect_rng_states()
    try:
        if states is not None:
            _set_rng_states(states)
        result = draw()
        return result, (outside if states is None else states, _collect_rng_states())
    finally:
        _set_rng_states(outside)


def passed(drawn: Drawn) -> bool:
    """Let the generators go on from where something was drawn, if they stand where it began.

    Returns:
        Whether what was drawn is what would be drawn now.
    """
    before, after = drawn
    if _equal(before, after):
        return True
    if not _equal(before, _collect_rng_states()):
        return False
    _set_rng_states(after)
    return True


def _equal(a: Any, b: Any) -> bool:
    """Compare nested states."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return all(_equal(value, b[key]) for key, value in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool((a == b).all()) if hasattr(a, "all") else bool(a == b)
