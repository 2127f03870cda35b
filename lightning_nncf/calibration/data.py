"""Forward passes over calibration data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_nncf.calibration.reduce import Reduce
from lightning_nncf.calibration.stale import StatisticsWatch
from lightning_nncf.errors import InitializationError

__all__ = ["CalibrationData", "ensure_statistics", "plain_progress", "require_samples", "run", "run_batches"]


def plain_progress(batches: Iterable[Any], total: int, description: str) -> Iterable[Any]:
    """Show no progress: return the batches as they are.

    >>> plain_progress([1, 2], 2, "Ranges")
    [1, 2]
    """
    return batches


@dataclass(frozen=True, kw_only=True)
class CalibrationData:
    """Data that initializes ranges and adapts batch-norm statistics, and the way to run the network on it.

    Args:
        batches: The batches; iterated anew for every pass.
        forward: Runs the network on one batch, on its device and in the precision of training.
        batch_size: Counts the samples of a batch.
        progress: Wraps ``(batches, total, description)`` to show progress.
        reduce: Combines statistics of several processes; ``None`` in a single process.
        surroundings: Opened around everything that is done with the data, to leave as it was what `forward` changes.
        loss: Computes the training loss of one batch; ``None`` where `forward` returns it.
        evaluate: Judges the network on a share of the validation data, by a metric of that name if one is given; higher
            is better.
        directory: Where files go that a configuration asks for; ``None`` where nothing is to be written.
        owner: The module whose ``train()`` training calls; default: the network.
        frozen: The norms that training leaves as they are; default: found by the owner's ``train()``.
        watch: Looks after stale statistics of norms in the first pass.
    """

    batches: Iterable[Any]
    forward: Callable[[Any], object]
    batch_size: Callable[[Any], int]
    progress: Callable[[Iterable[Any], int, str], Iterable[Any]] = plain_progress
    reduce: Reduce | None = None
    surroundings: Callable[[], AbstractContextManager[object]] = nullcontext
    loss: Callable[[Any], object] | None = None
    evaluate: Callable[[float, str | None], float] | None = None
    directory: Path | None = Path()
    owner: nn.Module | None = None
    frozen: frozenset[nn.Module] | None = None
    watch: StatisticsWatch | None = None


def run_batches(data: CalibrationData, num_samples: int, description: str) -> Iterator[int]:
    """Run the network without gradients until enough samples were seen, and yield after every batch.

    In several processes each runs this number of samples of its own part of the data.

    Args:
        data: The data.
        num_samples: Least number of samples, fewer only if the data ends; the last batch is used whole.
        description: What the pass is for, shown as progress.

    Yields:
        The number of samples in the batch that just ran.
    """
    if num_samples <= 0:
        return
    end = object()
    iterator = iter(data.batches)
    seen = 0

    def batches(batch: Any) -> Iterator[Any]:
        # asks for no batch more than needed: loading one may be slow
        while batch is not end:
            yield batch
            batch = next(iterator, end) if seen < num_samples else end

    try:
        first = next(iterator, end)
        total = 0 if first is end else math.ceil(num_samples / max(data.batch_size(first), 1))
        with nullcontext() if data.watch is None else data.watch.watching():
            for batch in data.progress(batches(first), total, description) if total else ():
                with torch.no_grad():
                    data.forward(batch)
                size = data.batch_size(batch)
                seen += size
                yield size
    finally:
        # a generator left in the middle cleans up now, not whenever it is collected
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def run(data: CalibrationData, num_samples: int, description: str) -> int:
    """Run the network without gradients on a number of samples.

    Args:
        data: The data.
        num_samples: Least number of samples, fewer only if the data ends; 0 runs nothing.
        description: What the pass is for, shown as progress and named in errors.

    Returns:
        The number of samples that ran in this process.

    Raises:
        InitializationError: The data has no batch, in no process.

    >>> data = CalibrationData(batches=[[1, 2], [3, 4], [5, 6]], forward=print, batch_size=len)
    >>> run(data, 3, "Batch-norm statistics")
    [1, 2]
    [3, 4]
    4
    """
    if num_samples <= 0:
        return 0
    seen = sum(run_batches(data, num_samples, description))
    require_samples(data, seen, description)
    return seen


def ensure_statistics(data: CalibrationData, num_samples: int = 256) -> None:
    """Look after stale statistics of norms now, before batches are run in another way than by `run_batches`."""
    if data.watch is not None and data.watch.pending:
        run(data, num_samples, "Batch-norm statistics")


def require_samples(data: CalibrationData, seen: int, description: str) -> None:
    """Raise in all processes alike if none of them saw a sample.

    Args:
        data: The data.
        seen: Number of samples that this process saw.
        description: What the pass was for.

    Raises:
        InitializationError: No process saw a sample.
    """
    total = seen
    if data.reduce is not None:
        total = int(data.reduce(torch.tensor([seen]), "sum"))
    if total == 0:
        raise InitializationError(
            f"{description} needs data, but the loader gave no batch; give a loader with at least one batch, or set "
            "the number of samples for this initialization to 0"
        )
