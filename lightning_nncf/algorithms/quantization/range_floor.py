"""The ranges that statistics give: checked, and as small as the data, except where there is nothing to measure."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_nncf.errors import InitializationError

__all__ = ["LEAST", "RangeFloor", "asymmetric_range", "checked_ends", "symmetric_scale"]

RangeFloor = Literal["data", "nncf"]

LEAST = 2.0**-40
"""Least size of a range. The 1e-16 that fake quantization adds to every range is nothing beside it, and products of two
steps are far from numbers that lose digits, which runtimes take for zero."""

_FAINT = 2.0**-20
"""A channel that is smaller than this share of the largest holds nothing that 8 bits of the whole could show."""

_UNKNOWN = 0.1
"""Size of a range of which nothing is known, for all that was seen is zero."""

_LEAST_WIDTH = 0.01
"""Least width of an asymmetric range, as a share of what it reaches from zero on: its width is what learns."""

_NNCF_SCALE = 0.1
_NNCF_SHARE = 0.01


def checked_ends(low: Tensor, high: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the ends of ranges in float32, of one shape.

    Args:
        low: Smallest value, one or one per channel.
        high: Largest value, of the shape of `low`.
        shape: The shape to return.

    Raises:
        InitializationError: They are NaN or infinite, or low lies above high.
    """
    low, high = (
        part.detach().to(torch.float32).reshape(shape if part.numel() > 1 else -1).expand(shape) for part in (low, high)
    )
    if not bool(torch.isfinite(low).all() & torch.isfinite(high).all() & (low <= high).all()):
        raise InitializationError(
            f"a range needs finite statistics with low <= high, got low {_shorten(low)} and high {_shorten(high)}; "
            "look for NaN or infinite values in the data, the weights or the network's outputs"
        )
    return low, high


def symmetric_scale(low: Tensor, high: Tensor, floor: RangeFloor = "data") -> Tensor:
    """Return the scales of symmetric ranges.

    Args:
        low: Smallest value of each channel.
        high: Largest value of each channel, of the shape of `low`.
        floor: ``data`` gives each channel what it reaches, and one without values the median of those with; ``nncf``
            gives at least 0.1.

    >>> low, high = torch.tensor([-0.002, 0.0, -0.006]), torch.tensor([0.001, 0.0, 0.001])
    >>> symmetric_scale(low, high)
    tensor([0.0020, 0.0020, 0.0060])
    >>> symmetric_scale(low, high, "nncf")
    tensor([0.1000, 0.1000, 0.1000])
    """
    largest = torch.maximum(low.abs(), high.abs())
    return largest.clamp_min(_NNCF_SCALE) if floor == "nncf" else _filled(largest)


def asymmetric_range(low: Tensor, high: Tensor, floor: RangeFloor = "data") -> tuple[Tensor, Tensor]:
    """Return low ends and widths of asymmetric ranges; what is too narrow is widened on both sides alike.

    Args:
        low: Smallest value of each channel.
        high: Largest value of each channel, of the shape of `low`.
        floor: ``data`` leaves each channel its width, and gives one without values the median of those with; ``nncf``
            gives at least 1 % of the widest channel's.

    >>> low, high = torch.tensor([-0.001, 0.0, -4.0]), torch.tensor([0.001, 0.0, 4.0])
    >>> [part.tolist() for part in asymmetric_range(low, high, "nncf")]
    [[-0.03999999910593033, -0.03999999910593033, -4.0], [0.07999999821186066, 0.07999999821186066, 8.0]]
    >>> asymmetric_range(low, high)[1]
    tensor([2.0000e-03, 2.0000e-03, 8.0000e+00])
    """
    width = high - low
    if floor == "nncf":
        widest = width.max()
        # all channels constant: the share of nothing is nothing, and a range of zero has no gradient
        least = torch.where(widest > 0, widest * _NNCF_SHARE, _NNCF_SCALE)
    else:
        reached = high.clamp_min(0) - low.clamp_max(0)
        filled = _filled(reached)
        least = torch.where(filled == reached, reached * _LEAST_WIDTH, filled)
    correction = (width.clamp_min(least) - width) / 2
    return low - correction, width + 2 * correction


def _filled(sizes: Tensor) -> Tensor:
    """Replace the sizes of channels in which there is nothing by the median of the others."""
    if sizes.numel() == 0:
        return sizes
    faint = sizes <= (sizes.max() * _FAINT).clamp_min(LEAST)
    found = sizes[~faint]
    return torch.where(faint, found.median() if found.numel() else _UNKNOWN, sizes)


def _shorten(values: Tensor) -> str:
    """Write a few values for an error message."""
    head = ", ".join(f"{value:.4g}" for value in values.flatten()[:4].tolist())
    return f"[{head}{', ...' if values.numel() > 4 else ''}]"
