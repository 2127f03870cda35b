"""The grid on which a fake quantizer puts its values: `levels` of them, ``step`` apart, zero among them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["EPSILON", "asymmetric_grid", "symmetric_grid"]

EPSILON = 1e-16
"""Added to the magnitude of a scale or a range, so that none is ever zero."""


def symmetric_grid(scale: Tensor, quant_min: int, quant_max: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the grid that a symmetric quantizer uses.

    Args:
        scale: Upper end of the range; only its magnitude counts.
        quant_min: Smallest integer.
        quant_max: Largest integer.

    Returns:
        ``(step, low, high)``, each of the shape of `scale`.

    >>> step, low, high = symmetric_grid(torch.tensor([127.0]), -128, 127)
    >>> step.item(), low.item(), high.item()
    (1.0, -128.0, 127.0)
    """
    high = scale.abs() + EPSILON
    return high / quant_max, high * (quant_min / quant_max), high


def asymmetric_grid(input_low: Tensor, input_range: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the grid that an asymmetric quantizer uses, tuned so that zero lies on it.

    The range is first widened to hold zero. Then the nearest integer zero point is taken and one end is moved out to
    fit it, the end that leaves the larger range. A range that passes zero by less than half a step is cut at zero,
    where NNCF keeps it and loses the zero.

    Args:
        input_low: Lower end of the range.
        input_range: Width of the range; only its magnitude counts.
        levels: Number of values, at least 3.

    Returns:
        ``(step, zero_point, low, high)``, each of the shape of `input_low`; `zero_point` holds whole numbers from 0
        to ``levels - 1``.

    >>> grid = asymmetric_grid(torch.tensor([-1.0]), torch.tensor([3.0]), 256)
    >>> [round(part.item(), 4) for part in grid]
    [0.0118, 85.0, -1.0, 2.0]
    """
    steps = levels - 1
    high = (input_low + (input_range.abs() + EPSILON)).clamp_min(0)
    low = input_low.clamp_max(0)
    zero_point = torch.round(-low * (steps / (high - low)))
    step_keeping_high = high / (steps - zero_point).clamp_min(1)
    step_keeping_low = -low / zero_point.clamp_min(1)
    keep_high = step_keeping_high >= step_keeping_low
    step = torch.where(keep_high, step_keeping_high, step_keeping_low)
    return (
        step,
        zero_point,
        torch.where(keep_high, -zero_point * step, low),
        torch.where(keep_high, high, (steps - zero_point) * step),
    )
