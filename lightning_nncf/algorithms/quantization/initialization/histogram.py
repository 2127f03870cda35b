"""Histograms of floating-point values with a bounded relative error, on a grid that does not depend on the data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_nncf.calibration import Reduce

__all__ = ["FloatHistogram", "exact_median_and_deviation", "reduce_histograms"]

_OCTAVES = 32
_MANTISSA = 7
_EXPONENTS = 256
_BIAS = 127
_PATTERNS = 2 * _EXPONENTS << _MANTISSA
"""Values of the upper 16 bits of a float32: sign, exponent, leading bits of the mantissa."""
_CHUNK = 1 << 18
"""Values that are counted at once."""
_ROWS = 16
"""Rows that are counted at once."""
_LARGEST = 1 << 19
"""Counters that a histogram may have."""
_KEPT = 1 << 18
"""Values that are kept as they are before they are counted."""


class FloatHistogram:
    """Counts of values by the leading bits of their float32 representation.

    A bucket is an interval between neighbouring numbers with a few bits of mantissa, so its width is at most ``2**-k``
    of the values in it: ``k`` is 7 for up to 64 rows, less for more, at least 3. Values below ``2**-31`` of the largest
    magnitude count as zero. The buckets do not depend on the data, so neither order nor number of batches or processes
    changes the counts, and histograms are merged by adding them. As long as there are few values in one process, they
    are kept as they are and what is read from the histogram is exact.

    Args:
        rows: Number of histograms, one per channel or one.

    >>> histogram = FloatHistogram(1)
    >>> histogram.update(torch.arange(1001.0)[None])
    >>> [round(float(histogram.quantile(share)), 1) for share in (0.0, 0.5, 0.999)]
    [0.0, 500.0, 999.0]
    """

    def __init__(self, rows: int) -> None:
        bits = _MANTISSA
        while bits > 3 and rows * (2 * _OCTAVES << bits) > _LARGEST:
            bits -= 1
        self.mantissa_bits = bits
        self.top = 0
        """Largest exponent, as a float32 stores it."""
        self.counts = torch.zeros(rows, 2, _OCTAVES, 1 << bits, dtype=torch.int64)
        """Counts by row, sign (negative first), octave below `top` (lowest first) and leading bits of the mantissa."""
        self.zeros = torch.zeros(rows, dtype=torch.int64)
        self._kept: Tensor | None = torch.zeros(rows, 0)

    def update(self, values: Tensor) -> None:
        """Take in values, float32 of shape [rows, N]; those that are not finite are not counted."""
        if self._kept is not None and self._kept.numel() + values.numel() <= _KEPT:
            self._kept = torch.cat([self._kept.to(values.device), values], 1)
            return
        self.count_kept()
        self._count(values)

    def count_kept(self) -> None:
        """Count the values that are kept as they are; none will be kept from now on."""
        kept, self._kept = self._kept, None
        if kept is not None and kept.numel():
            self._count(kept)

    def _count(self, values: Tensor) -> None:
        self.counts, self.zeros = self.counts.to(values.device), self.zeros.to(values.device)
        for start in range(0, len(values), _ROWS):
            rows = slice(start, start + _ROWS)
            patterns = _count_patterns(values[rows]).reshape(-1, 2, _EXPONENTS, 1 << _MANTISSA)
            present = patterns[:, :, 1:-1].sum((0, 1, 3)).nonzero()
            if len(present):
                self.raise_top(int(present.max()) + 1)
            lowest = max(self.top - _OCTAVES + 1, 1)
            self.zeros[rows] += patterns[:, :, :lowest].sum((1, 2, 3))
            octaves = patterns[:, :, lowest : self.top + 1]
            dropped = 1 << (_MANTISSA - self.mantissa_bits)
            merged = octaves.reshape(*octaves.shape[:3], 1 << self.mantissa_bits, dropped).sum(-1)
            self.counts[rows, :, _OCTAVES - merged.shape[2] :] += merged

    def raise_top(self, top: int) -> None:
        """Make room for values of a larger exponent; the smallest ones become zeros."""
        shift = min(top - self.top, _OCTAVES) if self.top else 0
        self.top = max(top, self.top)
        if shift > 0:
            self.zeros += self.counts[:, :, :shift].sum((1, 2, 3))
            self.counts = torch.cat([self.counts[:, :, shift:], torch.zeros_like(self.counts[:, :, :shift])], 2)

    def quantile(self, share: float) -> Tensor:
        """Return the value below which a share of the values lies, as numpy defines it, in float64 of shape [rows]."""
        if self._kept is not None:
            return torch.from_numpy(np.quantile(self._kept.double().cpu().numpy(), share, axis=1)).to(self._kept.device)
        edges, counts = self._sorted(zeros=True)
        cumulated = counts.cumsum(1)

        def at(rank: Tensor) -> Tensor:
            index = torch.searchsorted(cumulated, rank[:, None]).clamp_max(counts.shape[1] - 1)[:, 0]
            inside = counts.gather(1, index[:, None])[:, 0]
            before = cumulated.gather(1, index[:, None])[:, 0] - inside
            return edges[index] + (rank - before) / inside.clamp_min(1) * (edges[index + 1] - edges[index])

        value = _between_ranks(at, share, cumulated[:, -1])
        return torch.where(value.abs() <= edges[edges > 0].min(), torch.zeros_like(value), value)

    def median_and_deviation(self) -> tuple[Tensor, Tensor]:
        """Return median and median absolute deviation of the values other than zero; zeros where there are none."""
        if self._kept is not None:
            return exact_median_and_deviation(self._kept)
        without = FloatHistogram(len(self.zeros))
        without.top, without.counts, without.zeros = self.top, self.counts, torch.zeros_like(self.zeros)
        without._kept = None
        median = without.quantile(0.5)
        edges, counts = self._sorted(zeros=False)
        cumulated = torch.nn.functional.pad(counts.cumsum(1), (1, 0))
        total = cumulated[:, -1]

        def below(value: Tensor) -> Tensor:
            index = (torch.searchsorted(edges, value, right=True) - 1).clamp(0, counts.shape[1] - 1)
            share = ((value - edges[index]) / (edges[index + 1] - edges[index])).clamp(0, 1)
            return cumulated.gather(1, index[:, None])[:, 0] + share * counts.gather(1, index[:, None])[:, 0]

        def at(rank: Tensor) -> Tensor:
            low, high = torch.zeros_like(median), (2 * edges[-1]).expand_as(median)
            for _ in range(64):
                middle = (low + high) / 2
                enough = below(median + middle) - below(median - middle) >= rank
                low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
            return high

        deviation = _between_ranks(at, 0.5, total)
        empty = total == 0
        return median.masked_fill(empty, 0.0), deviation.masked_fill(empty, 0.0)

    def _sorted(self, *, zeros: bool) -> tuple[Tensor, Tensor]:
        """Return the edges of all buckets in ascending order, and the counts between them, both in float64."""
        negative, positive = self.counts.flatten(2).double().unbind(1)
        middle = self.zeros[:, None].double() * int(zeros)
        octaves = torch.arange(_OCTAVES, device=middle.device, dtype=torch.float64) + (self.top - _OCTAVES + 1 - _BIAS)
        steps = torch.arange(1 << self.mantissa_bits, device=middle.device, dtype=torch.float64)
        starts = (2 ** octaves[:, None] * (1 + steps / (1 << self.mantissa_bits))).flatten()
        edges = torch.cat([starts, 2 ** (octaves[-1:] + 1)])
        return torch.cat([-edges.flip(0), edges]), torch.cat([negative.flip(1), middle, positive], 1)


def exact_median_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return median and median absolute deviation of the values other than zero; zeros where there are none.

    Args:
        values: ``[rows, N]``.

    Returns:
        Both in float64, ``[rows]``.

    >>> exact_median_and_deviation(torch.tensor([[0.0, 1.0, 2.0, 9.0], [0.0, 0.0, 0.0, 0.0]]))
    (tensor([2., 0.], dtype=torch.float64), tensor([1., 0.], dtype=torch.float64))
    """
    plain = values.double().cpu().numpy()
    present = np.where(plain == 0, np.nan, plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rows of zeros alone have no median
        median = np.nanmedian(present, axis=1)
        deviation = np.nanmedian(abs(present - median[:, None]), axis=1)
    center, width = (torch.from_numpy(np.nan_to_num(part)).to(values.device) for part in (median, deviation))
    return center, width


def reduce_histograms(histograms: Sequence[FloatHistogram], reduce: Reduce) -> None:
    """Add histograms over processes in place, on the CPU; all processes end with the same counts.

    Args:
        histograms: The histograms, in every process the same number with the same rows.
        reduce: Combines a tensor over the processes.
    """
    if not histograms:
        return
    for item in histograms:
        item.count_kept()
    tops = reduce(torch.tensor([item.top for item in histograms]), "max").tolist()
    for item, top in zip(histograms, tops, strict=True):
        item.raise_top(top)
        item.counts = reduce(item.counts.cpu(), "sum")
        item.zeros = reduce(item.zeros.cpu(), "sum")


def _count_patterns(values: Tensor) -> Tensor:
    """Count the upper 16 bits of float32 values [rows, N], negative values first, each sign by magnitude."""
    rows = len(values)
    found = torch.zeros(rows * _PATTERNS, dtype=torch.int64, device=values.device)
    ones = torch.ones(_CHUNK, dtype=torch.int64, device=values.device)
    first = torch.arange(rows, device=values.device, dtype=torch.int32)[:, None] * _PATTERNS + _PATTERNS // 2
    # index_add_ takes 20 % less time than bincount, and no memory for a result per part
    for part in torch.split(values.contiguous().view(torch.int32), max(_CHUNK // rows, 1), dim=1):
        found.index_add_(0, (part >> 16).add_(first).flatten(), ones[: part.numel()])
    return found


def _between_ranks(at: Callable[[Tensor], Tensor], share: float, total: Tensor) -> Tensor:
    """Interpolate between the two neighbouring ranks of a share, each in the middle of its place in the order."""
    rank = share * (total - 1).clamp_min(0)
    lower = rank.floor()
    upper = torch.minimum(lower + 1, (total - 1).clamp_min(0))
    return at(lower + 0.5).lerp(at(upper + 0.5), rank - lower)
