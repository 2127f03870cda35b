"""Batches of the Trainer's own train loader for initialization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import CombinedLoader
from pytorch_lightning.utilities.data import extract_batch_size
from rich.progress import track

from lightning_nncf.calibration import CalibrationData, distributed_reduce
from lightning_nncf.callback.steps import StepRunner
from lightning_nncf.graph.preserve import preserved

__all__ = ["TrainBatches", "calibration_data", "rank_zero_progress"]


class TrainBatches:
    """Batches of the train loader as the training step gets them, iterable any number of times.

    Iterating leaves the loaders' own random generators as they were.

    Args:
        trainer: The Trainer, its data set up for training.
        module: The LightningModule, for its transfer hooks.
    """

    def __init__(self, trainer: Any, module: Any) -> None:
        self._trainer = trainer
        self._module = module

    def __iter__(self) -> Iterator[Any]:
        """Yield batches on the training device."""
        loaders = self._trainer.train_dataloader
        if loaders is None:
            return
        combined = loaders if hasattr(loaders, "flattened") else CombinedLoader(loaders, "max_size_cycle")
        generators = {id(g): g for loader in combined.flattened for g in _generators(loader)}
        states = {key: generator.get_state() for key, generator in generators.items()}
        try:
            for batch, _, _ in combined:
                yield self.to_device(batch)
        finally:
            for key, generator in generators.items():
                generator.set_state(states[key])

    def to_device(self, batch: Any) -> Any:
        """Do to a batch what Lightning's training loop does before a step."""
        batch = self._trainer.precision_plugin.convert_input(batch)
        batch = self._module._on_before_batch_transfer(batch, dataloader_idx=0)
        return self._trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def calibration_data(
    trainer: Any, module: Any, runner: StepRunner, *, evaluate: Callable[[float, str | None], float] | None = None
) -> CalibrationData:
    """Make the data that algorithms are initialized with from a Trainer that is about to fit."""

    def forward(batch: Any) -> object:
        with trainer.precision_plugin.forward_context():
            return runner(batch)

    return CalibrationData(
        batches=TrainBatches(trainer, module),
        forward=forward,
        batch_size=extract_batch_size,
        progress=rank_zero_progress(trainer),
        reduce=distributed_reduce(),
        surroundings=lambda: preserved(module, batch_norm=False),
        evaluate=evaluate,
        directory=None if trainer.fast_dev_run else Path(trainer.default_root_dir),
        owner=module,
    )


def rank_zero_progress(trainer: Any) -> Callable[[Iterable[Any], int, str], Iterable[Any]]:
    """Return a progress bar for rank zero, or one that shows nothing where the Trainer's is off."""

    def progress(batches: Iterable[Any], total: int, description: str) -> Iterable[Any]:
        shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
        return track(batches, description=description, total=total, disable=not shown, transient=True)

    return progress


def _generators(loader: Any) -> list[torch.Generator]:
    """Find the random generators that iterating a loader advances."""
    holders = [loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    holders.append(getattr(holders[2], "sampler", None))
    found = [getattr(holder, "generator", None) for holder in holders if holder is not None]
    return [generator for generator in found if isinstance(generator, torch.Generator)]
