"""Passes over data that set what training does not: ranges and batch-norm statistics.

All that others need is imported from the package itself. What is measured in a pass is the caller's: nothing here knows
an algorithm, a Trainer, or where the batches come from.
"""

from __future__ import annotations

from lightning_nncf.calibration.batch_norm import adapt_batch_norm
from lightning_nncf.calibration.data import (
    CalibrationData,
    ensure_statistics,
    plain_progress,
    require_samples,
    run,
    run_batches,
)
from lightning_nncf.calibration.loss import computing_loss, loss_of, training_loss
from lightning_nncf.calibration.norms import frozen_norms, tracking_norms
from lightning_nncf.calibration.reduce import Reduce, distributed_reduce, process_group_reduce
from lightning_nncf.calibration.stale import StatisticsWatch

__all__ = [
    "CalibrationData",
    "Reduce",
    "StatisticsWatch",
    "adapt_batch_norm",
    "computing_loss",
    "distributed_reduce",
    "ensure_statistics",
    "frozen_norms",
    "loss_of",
    "plain_progress",
    "process_group_reduce",
    "require_samples",
    "run",
    "run_batches",
    "tracking_norms",
    "training_loss",
]
