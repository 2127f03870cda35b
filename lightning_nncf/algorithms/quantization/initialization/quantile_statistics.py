"""Range statistics that leave out what is rare: percentiles, and three deviations around the median."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_nncf.algorithms.quantization.initialization.histogram import FloatHistogram, exact_median_and_deviation
from lightning_nncf.algorithms.quantization.initialization.range_statistics import RangeStatistics, rows_of

__all__ = [
    "HistogramStatistics",
    "MeanPercentileStatistics",
    "PercentileStatistics",
    "Percentiles",
    "QuantileType",
    "ThreeSigmaStatistics",
    "exact_quantiles",
]

QuantileType = Literal["threesigma", "percentile"]
Percentiles = tuple[float, float]

_SIGMAS = 3 * 1.4826
"""Three standard deviations of a normal distribution, in median absolute deviations."""


class HistogramStatistics(RangeStatistics):
    """Extremes, and a histogram of all values in bounded memory.

    Args:
        size: Number of channels, or 1.
        axis: Axis of the channels, or -1.
        symmetric: Whether they are for a symmetric range.
    """

    def __init__(self, size: int, axis: int, *, symmetric: bool) -> None:
        super().__init__("min_max", size, axis, symmetric=False)
        self.for_symmetric = symmetric
        self.histogram = FloatHistogram(size)

    def update(self, x: Tensor) -> None:
        """Take in one batch; an empty one counts for nothing."""
        super().update(x)
        if x.numel():
            self.histogram.update(rows_of(x.detach(), self.axis).float())

    def bounded(self, *values: Tensor) -> list[Tensor]:
        """Return estimates of the histogram within what was seen; NaN or infinite where something seen was."""
        low, high = self.low.double(), self.high.double()
        bad = ~(low.isfinite() & high.isfinite())
        return [torch.where(bad, low + high, value.clamp(low, high)) for value in values]


class PercentileStatistics(HistogramStatistics):
    """Percentiles of all values, each off by at most the width of a bucket of `FloatHistogram`.

    Args:
        size: Number of channels, or 1.
        axis: Axis of the channels, or -1.
        symmetric: Whether they are for a symmetric range.
        percentiles: The lower and the upper one, 0 to 100.
    """

    def __init__(self, size: int, axis: int, *, symmetric: bool, percentiles: Percentiles) -> None:
        super().__init__(size, axis, symmetric=symmetric)
        self.percentiles = percentiles

    def result(self) -> tuple[Tensor, Tensor]:
        """Return the low and the high end; infinite if nothing was seen."""
        if self.count == 0:
            return super().result()
        low, high = self.bounded(*(self.histogram.quantile(one / 100) for one in self.percentiles))
        return low.float(), high.float()


class ThreeSigmaStatistics(HistogramStatistics):
    """Median less and plus three deviations, estimated by the median absolute deviation; zeros are left out."""

    def result(self) -> tuple[Tensor, Tensor]:
        """Return the low and the high end; infinite if nothing was seen."""
        if self.count == 0:
            return super().result()
        median, deviation = self.histogram.median_and_deviation()
        (median,) = self.bounded(median)
        # all values alike: they fill no more than a part of a bucket
        low, high = self.low.double(), self.high.double()
        return three_sigma(median, torch.minimum(deviation, high - low), low if self.for_symmetric else None)


class MeanPercentileStatistics(RangeStatistics):
    """Means over batches of the percentiles of each.

    Args:
        size: Number of channels, or 1.
        axis: Axis of the channels, or -1.
        symmetric: Whether they are for a symmetric range.
        percentiles: The lower and the upper one, 0 to 100.
    """

    def __init__(self, size: int, axis: int, *, symmetric: bool, percentiles: Percentiles) -> None:
        super().__init__("mean_min_max", size, axis, symmetric=False)
        self._settings = {"symmetric": symmetric, "percentiles": percentiles}

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the percentiles of one batch."""
        batch = PercentileStatistics(len(self.low), self.axis, **self._settings)  # type: ignore[arg-type]
        batch.update(x)
        return batch.result()


def three_sigma(median: Tensor, deviation: Tensor, lowest: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the ends of a range from a median and a median absolute deviation.

    Args:
        median: Median.
        deviation: Median absolute deviation.
        lowest: Least value seen, for a symmetric range, whose sign follows from it and not from the deviation.
    """
    low, high = median - _SIGMAS * deviation, median + _SIGMAS * deviation
    if lowest is not None:
        low = torch.where(lowest >= 0, low.clamp_min(0), low)
    return low.float(), high.float()


def exact_quantiles(
    x: Tensor, axis: int, kind: QuantileType, percentiles: Percentiles, *, symmetric: bool
) -> tuple[Tensor, Tensor]:
    """Return the ends of a range from all values of one tensor, as a weight is.

    Args:
        x: The tensor.
        axis: Axis of the channels, or -1 for the whole tensor.
        kind: Percentiles, or three deviations around the median.
        percentiles: The lower and the upper one, 0 to 100.
        symmetric: Whether they are for a symmetric range.

    >>> exact_quantiles(torch.arange(101.0), -1, "percentile", (1.0, 90.0), symmetric=True)
    (tensor([1.]), tensor([90.]))
    """
    rows = rows_of(x.detach(), axis).double()
    low, high = rows.amin(1), rows.amax(1)
    if not bool((low.isfinite() & high.isfinite()).all()):
        return low.float(), high.float()
    if kind == "percentile":
        found = torch.from_numpy(np.percentile(rows.cpu().numpy(), percentiles, axis=1)).to(x.device, torch.float32)
        return found[0], found[1]
    return three_sigma(*exact_median_and_deviation(rows), low if symmetric else None)
