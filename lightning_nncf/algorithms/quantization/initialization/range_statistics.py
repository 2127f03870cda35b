"""Statistics of tensors, collected online, from which ranges are set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_nncf.calibration import Reduce

__all__ = ["MinMaxType", "RangeStatistics", "extremes", "reduce_statistics", "rows_of"]

MinMaxType = Literal["min_max", "mean_min_max", "mixed_min_max"]


def rows_of(x: Tensor, axis: int) -> Tensor:
    """Return the values of each channel as a row, in any order, without copying a dense tensor that is one row.

    Args:
        x: The tensor.
        axis: Axis of the channels, or -1 for the whole tensor.

    Returns:
        ``[C, N]``, or ``[1, N]`` for the whole tensor.

    >>> rows_of(torch.tensor([[1, 2], [3, 4]]), 1).tolist()
    [[1, 3], [2, 4]]
    """
    if axis >= 0:
        return x.movedim(axis, 0).flatten(1) if x.ndim > 1 else x[:, None]
    # in memory order, so that flattening a channels_last tensor is a view as well
    order = sorted(range(x.ndim), key=lambda dim: -x.stride()[dim])
    return x.permute(order).reshape(1, -1)


def extremes(x: Tensor, axis: int, *, per_sample: bool = False) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest values of a tensor, without copying it.

    Args:
        x: ``[N, ...]``, not empty.
        axis: Axis of the channels, or -1 for the whole tensor.
        per_sample: With `axis` -1, one value for each of the `N` samples.

    Returns:
        ``(low, high)``: ``[C]`` for an axis, ``[N]`` per sample, else ``[1]``.

    >>> x = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    >>> extremes(x, -1)
    (tensor([-2.]), tensor([4.]))
    >>> extremes(x, 1)
    (tensor([ 1., -2.]), tensor([3., 4.]))
    >>> extremes(x, -1, per_sample=True)
    (tensor([-2.,  3.]), tensor([1., 4.]))
    """
    if axis >= 0:
        dims = [dim for dim in range(x.ndim) if dim != axis]
        return (x.amin(dims), x.amax(dims)) if dims else (x, x)
    # memory order within each sample, as in `rows_of`
    order = sorted(range(1, x.ndim), key=lambda dim: -x.stride()[dim])
    samples = x.permute(0, *order).flatten(1) if x.ndim > 1 else x.reshape(1, -1)
    # not aminmax: along an axis it is 13 times slower on the CPU than both of these
    low, high = samples.amin(1), samples.amax(1)
    return (low, high) if per_sample else (low.amin(0, keepdim=True), high.amax(0, keepdim=True))


class RangeStatistics:
    """Running statistics of one tensor of the network.

    The sums hold means in the making: over batches for ``mean_min_max``, over samples for ``mixed_min_max`` per tensor.
    For symmetric ranges the largest value is that of the magnitude.

    Args:
        kind: Which statistics.
        size: Number of channels, or 1.
        axis: Axis of the channels, or -1.
        symmetric: Whether they are for a symmetric range.
    """

    def __init__(self, kind: MinMaxType, size: int, axis: int, *, symmetric: bool) -> None:
        self.axis = axis
        self.symmetric = symmetric
        self.per_sample = kind == "mixed_min_max" and axis < 0
        self.mean_of_high = kind == "mean_min_max" or self.per_sample
        self.mean_of_low = kind == "mean_min_max" or (self.per_sample and not symmetric)
        self.low = torch.full((size,), torch.inf)
        self.high = torch.full((size,), -torch.inf)
        self.sums = torch.zeros(2, size, dtype=torch.float64)
        self.count = 0

    def update(self, x: Tensor) -> None:
        """Take in one batch; an empty one counts for nothing."""
        if x.numel() == 0:
            return
        low, high = self.ends(x.detach())
        if self.count == 0:
            self.low, self.high, self.sums = (part.to(x.device) for part in (self.low, self.high, self.sums))
        if self.per_sample:
            self.count += len(low)
            self.sums[0] += low.double().sum()
            self.sums[1] += high.double().sum()
            low, high = low.amin(), high.amax()
        else:
            self.count += 1
            self.sums[0] += low
            self.sums[1] += high
        self.low = torch.minimum(self.low, low)
        self.high = torch.maximum(self.high, high)

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what one batch contributes to the low and to the high end."""
        low, high = extremes(x, self.axis, per_sample=self.per_sample)
        low, high = low.float(), high.float()
        return low, torch.maximum(low.abs(), high.abs()) if self.symmetric else high

    def result(self) -> tuple[Tensor, Tensor]:
        """Return the low and the high end; infinite if nothing was seen."""
        if self.count == 0:
            return self.low, self.high
        means = (self.sums / self.count).float()
        return means[0] if self.mean_of_low else self.low, means[1] if self.mean_of_high else self.high


def reduce_statistics(statistics: Sequence[RangeStatistics], reduce: Reduce) -> None:
    """Combine statistics over processes in place, on the CPU, with three reductions for all of them.

    Args:
        statistics: The statistics, in every process the same number of the same kinds.
        reduce: Combines a tensor over the processes.
    """
    if not statistics:
        return
    sizes = [len(item.low) for item in statistics]
    lows = torch.split(reduce(torch.cat([item.low.cpu() for item in statistics]), "min"), sizes)
    highs = torch.split(reduce(torch.cat([item.high.cpu() for item in statistics]), "max"), sizes)
    counts = torch.tensor([float(item.count) for item in statistics], dtype=torch.float64)
    totals = reduce(torch.cat([counts, *(item.sums.flatten().cpu() for item in statistics)]), "sum")
    sums = torch.split(totals[len(statistics) :], [2 * size for size in sizes])
    for item, low, high, total, count in zip(statistics, lows, highs, sums, totals.tolist(), strict=False):
        item.sums, item.count = total.reshape(2, -1), int(count)
        # a reduction to the minimum may drop the NaN of one process, a sum does not
        bad = item.sums.isnan()
        item.low, item.high = low.masked_fill(bad[0], torch.nan), high.masked_fill(bad[1], torch.nan)
