"""Accumulation of gradients that a configuration asks for."""

from __future__ import annotations

from typing import Any

from lightning_nncf.errors import ConfigError

__all__ = ["Accumulation"]


class Accumulation:
    """Sets the Trainer's ``accumulate_grad_batches`` for one fit and restores it."""

    def __init__(self) -> None:
        self._earlier: int | None = None

    def begin(self, trainer: Any, module: Any, multiplier: int) -> None:
        """Let a Trainer accumulate.

        Args:
            trainer: The Trainer, before the optimizers exist.
            module: The LightningModule.
            multiplier: Number of batches per optimizer step; 1 leaves the Trainer as it is.

        Raises:
            ConfigError: The Trainer, another callback or the module decides on this already.
        """
        if multiplier == 1:
            return
        key = f"`params.batch_multiplier` of {multiplier}"
        if not module.automatic_optimization:
            raise ConfigError(
                f"{key} needs automatic optimization, but {type(module).__name__} optimizes manually; accumulate in "
                "its training step and set the key to 1"
            )
        schedules = [each for each in trainer.callbacks if hasattr(each, "going_to_accumulate_grad_batches")]
        if schedules:
            raise ConfigError(f"{key} contradicts {type(schedules[0]).__name__}; keep one of them")
        if trainer.accumulate_grad_batches not in (1, multiplier):
            raise ConfigError(
                f"{key} contradicts the Trainer's `accumulate_grad_batches` of {trainer.accumulate_grad_batches}; "
                "leave that at 1"
            )
        if trainer.accumulate_grad_batches == multiplier:
            return  # as somebody asked already, who also gives back what was before
        self._earlier = trainer.accumulate_grad_batches
        trainer.accumulate_grad_batches = multiplier

    def end(self, trainer: Any) -> None:
        """Give the Trainer back the value it had."""
        if self._earlier is not None:
            trainer.accumulate_grad_batches = self._earlier
        self._earlier = None
