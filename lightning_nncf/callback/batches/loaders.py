"""Batches of the Trainer's own train loader for initialization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.data import extract_batch_size
from rich.progress import track

from lightning_nncf.calibration import CalibrationData, distributed_reduce
from lightning_nncf.callback.batches.sources import LoopData
from lightning_nncf.callback.running.steps import StepRunner

__all__ = ["TrainBatches", "calibration_data", "on_device", "rank_zero_progress"]


class TrainBatches:
    """Batches of one epoch as the training step gets them, iterable any number of times and without effect on training.

    Args:
        trainer: The Trainer.
        module: The LightningModule, for its transfer hooks.
        data: The training loop's data.
    """

    def __init__(self, trainer: Any, module: Any, data: LoopData) -> None:
        self._trainer = trainer
        self._module = module
        self._data = data

    def __iter__(self) -> Iterator[Any]:
        """Yield batches on the training device."""
        reader = self._data.read()
        try:
            for batch, _, _ in reader:
                yield on_device(self._trainer, self._module, batch)
        finally:
            reader.close()  # type: ignore[attr-defined]


def on_device(trainer: Any, module: Any, batch: Any, dataloader_idx: int = 0) -> Any:
    """Do to a batch what Lightning's loops do before a step."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=dataloader_idx)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=dataloader_idx)


def calibration_data(
    trainer: Any, runner: StepRunner, data: LoopData, *, evaluate: Callable[[float, str | None], float] | None = None
) -> CalibrationData:
    """Make the data that algorithms are initialized with from a Trainer that is about to fit."""
    return CalibrationData(
        batches=TrainBatches(trainer, runner.module, data),
        forward=runner,
        loss=runner.loss,
        batch_size=extract_batch_size,
        progress=rank_zero_progress(trainer),
        reduce=distributed_reduce(),
        surroundings=runner.surroundings,
        evaluate=evaluate,
        directory=None if trainer.fast_dev_run else Path(trainer.default_root_dir),
        owner=runner.module,
    )


def rank_zero_progress(trainer: Any) -> Callable[[Iterable[Any], int, str], Iterable[Any]]:
    """Return a progress bar for rank zero, or one that shows nothing where the Trainer's is off."""

    def progress(batches: Iterable[Any], total: int, description: str) -> Iterable[Any]:
        shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
        return track(batches, description=description, total=total, disable=not shown, transient=True)

    return progress
