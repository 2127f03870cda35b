"""A course that runs once between two epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_nncf.schedules.scheduler import Scheduler, nothing

__all__ = ["WarmupScheduler"]


class WarmupScheduler(Scheduler):
    """Reports the share of the way between two epochs at every optimizer step, and the end.

    Args:
        start_epoch: Epoch in which the way begins.
        end_epoch: Epoch in which it is done.
        steps_per_epoch: Optimizer steps in an epoch; without it the share changes once per epoch until it is measured.

    >>> scheduler = WarmupScheduler(1, 2, steps_per_epoch=2)
    >>> scheduler.attach(lambda share: print(share), lambda: print("end"))
    >>> for _ in range(3):
    ...     scheduler.epoch_step()
    ...     scheduler.step(), scheduler.step()
    (None, None)
    0.0
    0.5
    (None, None)
    1.0
    end
    (None, None)
    """

    def __init__(self, start_epoch: int, end_epoch: int, steps_per_epoch: int | None = None) -> None:
        super().__init__()
        self.start_epoch = start_epoch
        self.end_epoch = end_epoch
        self.steps_per_epoch = steps_per_epoch
        self._steps_in_epoch = 0
        self._on_share: Callable[[float], None] = nothing
        self._on_end: Callable[[], None] = nothing

    def attach(self, on_share: Callable[[float], None], on_end: Callable[[], None]) -> None:
        """Say what to do with a new share, from 0 to 1, and once the end epoch begins."""
        self._on_share = on_share
        self._on_end = on_end

    def announce_steps(self, steps_per_epoch: int) -> None:
        """Take the number of optimizer steps per epoch, unless it was given."""
        if self.steps_per_epoch is None:
            self.steps_per_epoch = steps_per_epoch

    def epoch_step(self) -> None:
        """Begin the next epoch."""
        if self.steps_per_epoch is None and self._steps_in_epoch:
            self.steps_per_epoch = self._steps_in_epoch
        self._steps_in_epoch = 0
        super().epoch_step()
        if self.current_epoch == self.end_epoch:
            self._on_share(1.0)
            self._on_end()

    def step(self) -> None:
        """Begin the next optimizer step."""
        super().step()
        self._steps_in_epoch += 1
        if self.start_epoch <= self.current_epoch < self.end_epoch:
            part = (self._steps_in_epoch - 1) / self.steps_per_epoch if self.steps_per_epoch else 0.0
            self._on_share(min((self.current_epoch + part - self.start_epoch) / (self.end_epoch - self.start_epoch), 1))

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {**super().state_dict(), "steps_per_epoch": self.steps_per_epoch, "steps_in_epoch": self._steps_in_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the counters."""
        super().load_state_dict(state)
        self.steps_per_epoch = state["steps_per_epoch"]
        self._steps_in_epoch = int(state["steps_in_epoch"])
