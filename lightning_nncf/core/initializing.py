"""Initialization from data: of everything at first, of ranges again, and of what begins in the middle of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from lightning_nncf.calibration import CalibrationData, StatisticsWatch, frozen_norms, tracking_norms
from lightning_nncf.capture.preserve import preserved
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.insertion import refuse_stripped
from lightning_nncf.errors import InitializationError

__all__ = ["begin_waiting", "initialize_all", "initialize_ranges"]


def initialize_all(network: nn.Module, algorithms: Sequence[Algorithm], data: CalibrationData) -> None:
    """Set everything that needs data, watching norms whose statistics are far from it."""
    with _calibrating(network, data) as prepared:
        frozen = prepared.frozen or frozenset()
        norms = {name: norm for name, norm in tracking_norms(network).items() if norm not in frozen}
        watch = StatisticsWatch(norms, renew=_adapts_norms(algorithms), reduce=data.reduce)
        for algorithm in algorithms:
            algorithm.initialize(network, replace(prepared, watch=watch))


def initialize_ranges(network: nn.Module, algorithms: Sequence[Algorithm], data: CalibrationData | None) -> None:
    """Set the ranges of all quantizers again.

    Raises:
        InitializationError: There is no data.
    """
    with _calibrating(network, _required(data)) as prepared:
        for algorithm in algorithms:
            algorithm.initialize_ranges(network, prepared)


def begin_waiting(network: nn.Module, waiting: Sequence[Algorithm], data: CalibrationData | None) -> None:
    """Initialize what has begun in algorithms that wait for data.

    Raises:
        InitializationError: There is no data.
    """
    with _calibrating(network, _required(data)) as prepared:
        for algorithm in waiting:
            algorithm.begin(network, prepared)
            algorithm.wants_data = False


def _required(data: CalibrationData | None) -> CalibrationData:
    """Return the data for initializations during training."""
    if data is None:
        raise InitializationError(
            "ranges are to be initialized now, but there is no data for it; set `calibration` of the compressed "
            "network after restoring or copying it, or give batches"
        )
    return data


def _adapts_norms(algorithms: Sequence[Algorithm]) -> bool:
    """Whether statistics of norms may change: not if all algorithms that could change them are told not to."""
    wanted = [algorithm.adaptation_samples for algorithm in algorithms]
    given = [samples for samples in wanted if samples is not None]
    return any(given) or not given


@contextmanager
def _calibrating(network: nn.Module, data: CalibrationData) -> Iterator[CalibrationData]:
    """Let a network run in evaluation mode, and leave everything else as it was."""
    refuse_stripped(network)
    with isolate_rng(), data.surroundings(), preserved(network, batch_norm=False), torch.no_grad():
        frozen = frozen_norms(network, data.owner)
        network.eval()
        yield replace(data, frozen=frozen)
