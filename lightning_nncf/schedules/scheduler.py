"""What counts epochs and optimizer steps while schedules stay pure functions."""

from __future__ import annotations

from typing import Any

__all__ = ["Scheduler", "nothing"]


class Scheduler:
    """Counter of epochs and optimizer steps, the base of every scheduler.

    Both counters start at -1, so that the first `epoch_step` or `step` makes them 0.

    >>> scheduler = Scheduler()
    >>> scheduler.epoch_step(); scheduler.step(); scheduler.step()
    >>> scheduler.current_epoch, scheduler.current_step
    (0, 1)
    """

    def __init__(self) -> None:
        self.current_epoch = -1
        self.current_step = -1

    def epoch_step(self) -> None:
        """Begin the next epoch."""
        self.current_epoch += 1

    def step(self) -> None:
        """Begin the next optimizer step."""
        self.current_step += 1

    def announce_steps(self, steps_per_epoch: int) -> None:
        """Take note of how many optimizer steps an epoch has, for schedules that need it."""

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {"current_epoch": self.current_epoch, "current_step": self.current_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the counters from `state_dict`."""
        self.current_epoch = int(state["current_epoch"])
        self.current_step = int(state["current_step"])


def nothing(*_: object) -> None:
    """Do nothing: what an event does before somebody attaches to it; has a name, so that schedulers can be pickled."""
