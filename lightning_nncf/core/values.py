"""Which values a tensor held, in a few plain numbers, and random tensors that hold such values.

Shapes and types alone do not make inputs that a network was made for: pixels in 0..255, prices in 0..1e5, masks of two
values. A few quantiles say how the values of any such tensor lie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["describe_values", "make_values", "merge_values"]

_FEW = 16
"""Distinct values up to which they are all listed."""
_QUANTILES = 17
_SAMPLED = 1 << 16


def describe_values(tensor: Tensor) -> dict[str, Any]:
    """Describe the values of a tensor: all of them where they are few, else quantiles from the least to the largest.

    >>> describe_values(torch.tensor([3, 1, 3]))
    {'values': [1, 3]}
    >>> found = describe_values(torch.linspace(0, 8, 161))
    >>> found["quantiles"][0], found["quantiles"][8], found["quantiles"][-1]
    (0.0, 4.0, 8.0)
    """
    if tensor.numel() == 0 or tensor.is_complex() or tensor.is_quantized:
        return {}
    flat = tensor.detach().flatten()
    flat = (flat.double() if flat.is_floating_point() else flat.long()).cpu()
    stride = max(1, flat.numel() // _SAMPLED)
    sampled = flat[::stride]
    distinct = torch.unique(sampled)
    if len(distinct) <= _FEW and (stride == 1 or bool(torch.isin(flat, distinct).all())):
        return {"values": [value for value in distinct.tolist() if value == value]}
    finite = sampled[torch.isfinite(sampled)].double()
    if finite.numel() == 0:
        return {}
    quantiles = torch.quantile(finite, torch.linspace(0, 1, _QUANTILES, dtype=torch.double))
    whole = flat[torch.isfinite(flat)]
    quantiles[0], quantiles[-1] = whole.min(), whole.max()
    return {"quantiles": quantiles.tolist(), "whole": bool((whole == whole.round()).all())}


def make_values(description: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    """Make a tensor of the shape, the type and the values described.

    Args:
        description: ``shape``, ``dtype`` and what `describe_values` returned; without the latter floats are normal, and
            integers lie between 0 and ``high``.
        generator: Source of the random numbers.
    """
    dtype: torch.dtype = getattr(torch, description["dtype"])
    shape = tuple(description["shape"])
    if description.get("values"):
        values = torch.tensor(description["values"])
        return values[torch.randint(0, len(values), shape, generator=generator)].to(dtype)
    if "quantiles" in description:
        borders = torch.tensor(description["quantiles"], dtype=torch.double)
        place = torch.rand(shape, generator=generator, dtype=torch.double) * (len(borders) - 1)
        below = place.floor().long().clamp(max=len(borders) - 2)
        made = torch.lerp(borders[below], borders[below + 1], place - below)
        return (made.round() if description["whole"] or not dtype.is_floating_point else made).to(dtype)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, int(description.get("high", 1)) + 1, shape, generator=generator).to(dtype)


def merge_values(first: Mapping[str, Any], second: Mapping[str, Any], weight: float) -> dict[str, Any]:
    """Describe the values of two tensors together; everything else is as the first says.

    Args:
        first: A description of a tensor.
        second: Another one.
        weight: Share of the second in the quantiles between the least and the largest value; 1 leaves it alone.

    >>> merge_values({"values": [0, 1]}, {"values": [1, 2]}, 0.5)
    {'values': [0, 1, 2]}
    """
    rest = {key: value for key, value in first.items() if key not in ("values", "quantiles", "whole")}
    if weight == 1 and (found := _values_of(second)):
        return {**rest, **found}
    if "values" in first and "values" in second:
        together = sorted({*first["values"], *second["values"]})
        if len(together) <= _FEW:
            return {**rest, "values": together}
    described = [_quantiles(one) for one in (first, second)]
    if described[0] is None or described[1] is None:
        return dict(first) if described[1] is None else {**rest, **_values_of(second)}
    (one, whole_one), (other, whole_other) = described[0], described[1]
    mixed = [a + (b - a) * weight for a, b in zip(one, other, strict=True)]
    mixed[0], mixed[-1] = min(one[0], other[0]), max(one[-1], other[-1])
    return {**rest, "quantiles": mixed, "whole": whole_one and whole_other}


def _values_of(description: Mapping[str, Any]) -> dict[str, Any]:
    return {key: description[key] for key in ("values", "quantiles", "whole") if key in description}


def _quantiles(description: Mapping[str, Any]) -> tuple[list[float], bool] | None:
    """Return quantiles, also of a list of values, and whether all values are whole numbers."""
    if "quantiles" in description:
        return list(description["quantiles"]), bool(description["whole"])
    finite = [float(value) for value in description.get("values", ()) if math.isfinite(value)]
    if not finite:
        return None
    values = torch.tensor(sorted(finite), dtype=torch.double)
    return torch.quantile(values, torch.linspace(0, 1, _QUANTILES, dtype=torch.double)).tolist(), all(
        value == round(value) for value in finite
    )
