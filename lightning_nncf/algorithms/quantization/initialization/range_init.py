"""Initialization of quantizer ranges from weights and from data."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lightning_nncf.algorithms.quantization.initialization.histogram import reduce_histograms
from lightning_nncf.algorithms.quantization.initialization.initializer_config import RangeType
from lightning_nncf.algorithms.quantization.initialization.quantile_statistics import (
    HistogramStatistics,
    MeanPercentileStatistics,
    Percentiles,
    PercentileStatistics,
    ThreeSigmaStatistics,
    exact_quantiles,
)
from lightning_nncf.algorithms.quantization.initialization.range_fit import fit_range
from lightning_nncf.algorithms.quantization.initialization.range_statistics import (
    RangeStatistics,
    extremes,
    reduce_statistics,
)
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.calibration import CalibrationData, Reduce, require_samples, run_batches
from lightning_nncf.errors import InitializationError

__all__ = ["RangeTask", "bypassed", "initialize_ranges", "initialize_weight_ranges"]

_log = logging.getLogger(__name__)

_DESCRIPTION = "Range initialization"
_FEW_BITS = 2
_UP_TO_LARGEST = ("min_max", "mean_min_max", "mixed_min_max")


@dataclass(frozen=True, kw_only=True)
class RangeTask:
    """One quantizer to initialize.

    Args:
        name: Name of the quantizer for messages.
        quantizer: The quantizer; it appears in one task, however many places share it.
        weight: The weight that it quantizes; ``None`` for an activation, whose statistics come from data.
        type: Which statistics set the range.
        percentiles: The lower and the upper percentile, 0 to 100, of the types that take percentiles.
        num_samples: Samples to collect per process; 0 leaves the range as it is, in the weights too.
    """

    name: str
    quantizer: Quantizer
    weight: nn.Parameter | None = None
    type: RangeType = "mixed_min_max"
    percentiles: Percentiles = (0.1, 99.9)
    num_samples: int = 256


def initialize_ranges(tasks: Sequence[RangeTask], data: CalibrationData) -> None:
    """Set the ranges of quantizers; those of activations in one pass of the network with all of them bypassed.

    The network is expected in evaluation mode. In several processes the statistics are combined, so that all get the
    same ranges to the bit. A quantizer that several places share gets the smallest low and the largest high of them.

    Args:
        tasks: The quantizers, also those whose range stays (they are bypassed during the pass).
        data: The data; not touched when only weights are to be initialized.

    Raises:
        InitializationError: The data is empty, or a quantizer saw nothing or values that are NaN or infinite.
    """
    _warn_of_few_levels(tasks)
    initialize_weight_ranges(tasks)
    collectors = [_Collector(task) for task in tasks if task.weight is None and task.num_samples > 0]
    if collectors:
        require_samples(data, _collect(tasks, collectors, data), _DESCRIPTION)
        if data.reduce is not None:
            _equalize_calls(collectors, data.reduce)
            collected = [statistics for collector in collectors for statistics in collector.calls]
            reduce_statistics(collected, data.reduce)
            reduce_histograms([x.histogram for x in collected if isinstance(x, HistogramStatistics)], data.reduce)
        for collector in collectors:
            _set_range(collector.task, *_merge(collector))


def initialize_weight_ranges(tasks: Sequence[RangeTask]) -> None:
    """Set the ranges of the quantizers of weights, which needs no data.

    Raises:
        InitializationError: A weight holds values that are NaN or infinite.
    """
    for task in tasks:
        if task.weight is not None and task.num_samples > 0:
            _set_range(task, *_weight_range(task, task.weight))
            if task.type == "least_squares":
                fit_range(task.quantizer, task.weight)


def _warn_of_few_levels(tasks: Sequence[RangeTask]) -> None:
    """Warn of ranges up to the largest value with few levels, where most values fall on that of zero."""
    for kind, better in (("weights", "`least_squares`"), ("activations", "`percentile` with percentiles 1 and 99")):
        types = _UP_TO_LARGEST if kind == "weights" else (*_UP_TO_LARGEST, "least_squares")
        found = [
            task
            for task in tasks
            if (task.weight is not None) == (kind == "weights")
            and task.quantizer.config.bits == _FEW_BITS
            and task.type in types
            and task.num_samples > 0
        ]
        if found:
            rank_zero_warn(
                f"{len(found)} quantizers of {kind} have {_FEW_BITS} bits and a range up to the largest value "
                f"(`{found[0].type}`), such as {found[0].name!r}: most values fall on the level of zero, and training "
                f"seldom recovers from it; set {better} in `initializer.range` with `target_quantizer_group: {kind}`"
            )


@dataclass
class _Collector:
    """Statistics of one activation quantizer: one set for each of its calls in a forward pass."""

    task: RangeTask
    calls: list[RangeStatistics] = field(default_factory=list)
    call: int = 0
    seen: int = 0

    def hook(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.seen >= self.task.num_samples:
            return
        if self.call == len(self.calls):
            self.calls.append(_new_statistics(self.task))
        self.calls[self.call].update(inputs[0])
        self.call += 1

    def end_batch(self, size: int) -> None:
        self.call = 0
        self.seen += size


def _new_statistics(task: RangeTask) -> RangeStatistics:
    """Prepare statistics of activations that fit a quantizer."""
    quantizer = task.quantizer
    size, axis = next(quantizer.parameters()).numel(), quantizer.axis
    symmetric = quantizer.config.mode == "symmetric"
    if task.type == "threesigma":
        return ThreeSigmaStatistics(size, axis, symmetric=symmetric)
    if task.type == "percentile":
        return PercentileStatistics(size, axis, symmetric=symmetric, percentiles=task.percentiles)
    if task.type == "mean_percentile":
        return MeanPercentileStatistics(size, axis, symmetric=symmetric, percentiles=task.percentiles)
    kind = "mixed_min_max" if task.type == "least_squares" else task.type
    return RangeStatistics(kind, size, axis, symmetric=symmetric)


def _weight_range(task: RangeTask, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends for a weight, which is one sample and seen whole."""
    axis, symmetric = task.quantizer.axis, task.quantizer.config.mode == "symmetric"
    if task.type == "threesigma":
        return exact_quantiles(weight, axis, "threesigma", task.percentiles, symmetric=symmetric)
    if task.type in ("percentile", "mean_percentile"):
        return exact_quantiles(weight, axis, "percentile", task.percentiles, symmetric=symmetric)
    return extremes(weight.detach(), axis)


def _collect(tasks: Sequence[RangeTask], collectors: Sequence[_Collector], data: CalibrationData) -> int:
    """Run the data through the network and return the number of samples."""
    seen = 0
    with ExitStack() as stack:
        stack.enter_context(bypassed([task.quantizer for task in tasks]))
        for collector in collectors:
            handle = collector.task.quantizer.register_forward_pre_hook(collector.hook)
            stack.callback(handle.remove)
        for size in run_batches(data, max(item.task.num_samples for item in collectors), _DESCRIPTION):
            seen += size
            for collector in collectors:
                collector.end_batch(size)
    return seen


@contextmanager
def bypassed(quantizers: Sequence[Quantizer]) -> Iterator[None]:
    """Let quantizers pass their input unchanged for a while."""
    states = [quantizer.enabled for quantizer in quantizers]
    try:
        for quantizer in quantizers:
            quantizer.enabled = False
        yield
    finally:
        for quantizer, state in zip(quantizers, states, strict=True):
            quantizer.enabled = state


def _equalize_calls(collectors: Sequence[_Collector], reduce: Reduce) -> None:
    """Give every process the same number of statistics, where the path through the network depends on the data."""
    counts = reduce(torch.tensor([len(collector.calls) for collector in collectors]), "max").tolist()
    for collector, count in zip(collectors, counts, strict=True):
        collector.calls.extend(_new_statistics(collector.task) for _ in range(count - len(collector.calls)))


def _merge(collector: _Collector) -> tuple[Tensor, Tensor]:
    """Return the smallest low and the largest high of all calls of a quantizer."""
    results = [statistics.result() for statistics in collector.calls if statistics.count > 0]
    if not results:
        raise InitializationError(
            f"quantizer {collector.task.name!r} saw no value during range initialization; give data that reaches it, "
            "or put it in `ignored_scopes`"
        )
    lows, highs = zip(*results, strict=True)
    return torch.stack(lows).amin(0), torch.stack(highs).amax(0)


def _set_range(task: RangeTask, low: Tensor, high: Tensor) -> None:
    """Set the range of one quantizer, naming it in what goes wrong."""
    try:
        task.quantizer.set_range(low, high)
    except InitializationError as error:
        raise InitializationError(f"quantizer {task.name!r}: {error}") from error
    config = task.quantizer.config
    if config.mode == "symmetric" and config.signed is False and bool((low < 0).any()):
        _log.warning(
            "quantizer %r is configured as unsigned but its data reach down to %.4g: negative values become zero",
            task.name,
            float(low.min()),
        )
