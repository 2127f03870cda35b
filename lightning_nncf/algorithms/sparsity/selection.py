"""The k-th smallest of many values spread over several tensors, without sorting them all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["kth_smallest"]

_CHUNK = 1 << 18
_SAMPLE = 1 << 16
_SMALL = 1 << 17


def kth_smallest(tensors: Sequence[Tensor], k: int) -> Tensor:
    """Return the k-th smallest value, from 0, of all tensors together.

    A sample brackets the value; one pass counts what lies below the bracket and collects what lies inside, so that
    only about one value in a hundred is sorted. The result is exact.

    Args:
        tensors: Values without NaN, on one device.
        k: Position in ascending order.

    Returns:
        The value, shape [].

    Raises:
        ValueError: There are not more than ``k`` values.

    >>> kth_smallest([torch.tensor([3.0, 1.0]), torch.tensor([2.0])], 1)
    tensor(2.)
    """
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    total = sum(tensor.numel() for tensor in flat)
    if not 0 <= k < total:
        raise ValueError(f"`k` must be from 0 to {total - 1}, got {k}")
    if total <= _SMALL:
        return _sorted_at(torch.cat(flat), k)
    low, high = _bracket(flat, k, total)
    below, inside = 0, []
    for chunk in _chunks(flat):
        at_least = chunk >= low
        below += chunk.numel() - int(torch.count_nonzero(at_least))
        inside.append(chunk[at_least & (chunk <= high)])
    candidates = torch.cat(inside)
    if below <= k < below + candidates.numel():
        return _sorted_at(candidates, k - below)
    return _sorted_at(torch.cat(flat), k)


def _sorted_at(values: Tensor, k: int) -> Tensor:
    return torch.kthvalue(values, k + 1).values


def _bracket(flat: Sequence[Tensor], k: int, total: int) -> tuple[Tensor, Tensor]:
    """Return bounds that almost surely hold the value, from every n-th value."""
    stride = max(total // _SAMPLE, 1)
    sample = torch.cat([tensor[::stride] for tensor in flat]).sort().values
    share = k / total
    deviation = 6 * math.sqrt(share * (1 - share) * len(sample)) + 6
    low, high = int(share * len(sample) - deviation), math.ceil(share * len(sample) + deviation)
    lowest = sample[low] if low >= 0 else sample.new_tensor(-math.inf)
    highest = sample[high] if high < len(sample) else sample.new_tensor(math.inf)
    return lowest, highest


def _chunks(flat: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield pieces that fit the cache; on an accelerator whole tensors."""
    for tensor in flat:
        yield from torch.split(tensor, _CHUNK) if tensor.device.type == "cpu" else (tensor,)
