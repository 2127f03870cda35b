"""Staged training: activations and weights are compressed from different epochs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_nncf.schedules.scheduler import Scheduler, nothing

__all__ = ["StagedScheduler"]


class StagedScheduler(Scheduler):
    """Says at the beginning of which epoch activations and weights start to be compressed.

    Args:
        activations_start: First epoch with compressed activations.
        weights_start: First epoch with compressed weights.

    >>> scheduler = StagedScheduler(activations_start=1, weights_start=2)
    >>> scheduler.attach(lambda: print("activations"), lambda: print("weights"))
    >>> for epoch in range(3):
    ...     scheduler.epoch_step()
    activations
    weights
    """

    def __init__(self, activations_start: int, weights_start: int) -> None:
        super().__init__()
        self.activations_start = activations_start
        self.weights_start = weights_start
        self.steps_per_epoch: int | None = None
        self._steps_in_epoch = 0
        self._starts: tuple[Callable[[], None], Callable[[], None]] = (nothing, nothing)
        self._on_step: Callable[[], None] = nothing

    def attach(
        self,
        start_activations: Callable[[], None],
        start_weights: Callable[[], None],
        on_step: Callable[[], None] | None = None,
    ) -> None:
        """Say what to do.

        Args:
            start_activations: Called once, in the first epoch with compressed activations.
            start_weights: Called once, in the first epoch with compressed weights.
            on_step: Called at each optimizer step.
        """
        self._starts = (start_activations, start_weights)
        self._on_step = on_step or nothing

    @property
    def progress(self) -> float:
        """Epochs done, with the fraction of the current one where the number of its steps is known."""
        part = max(self._steps_in_epoch - 1, 0) / self.steps_per_epoch if self.steps_per_epoch else 0.0
        return max(self.current_epoch, 0) + min(part, 1.0)

    def announce_steps(self, steps_per_epoch: int) -> None:
        """Take note of the number of optimizer steps per epoch."""
        self.steps_per_epoch = steps_per_epoch

    def epoch_step(self) -> None:
        """Begin the next epoch, and what starts with it."""
        super().epoch_step()
        self._steps_in_epoch = 0
        for start, begin in zip((self.activations_start, self.weights_start), self._starts, strict=True):
            if self.current_epoch == start:
                begin()

    def step(self) -> None:
        """Begin the next optimizer step."""
        super().step()
        self._steps_in_epoch += 1
        self._on_step()

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {**super().state_dict(), "steps_in_epoch": self._steps_in_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the counters; nothing is started, the algorithm's own state says what has."""
        super().load_state_dict(state)
        self._steps_in_epoch = int(state["steps_in_epoch"])
