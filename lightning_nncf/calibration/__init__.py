"""Passes over data that set what training does not: ranges and batch-norm statistics."""

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
