"""The level of pruning by epoch."""

from __future__ import annotations

from lightning_nncf.schedules.level import LevelScheduler
from lightning_nncf.schedules.pruning import PRUNING_SCHEDULES
from lightning_nncf.schedules.scheduler import Scheduler

__all__ = ["PruningScheduler"]


class PruningScheduler(LevelScheduler):
    """Nothing is pruned during the warmup; then the level follows a schedule, and in the end it is frozen.

    Filters are chosen once more in the epoch in which they are frozen, as in NNCF, whose schedules of pruning differ in
    this from those of sparsity: the baseline sets its only level in that epoch.

    Args:
        schedule: Name of the schedule.
        initial: Level when the warmup ends.
        target: Level at the end.
        warmup: Epochs before pruning begins.
        steps: Epochs in which the level rises.

    >>> scheduler = PruningScheduler("baseline", 0.0, 0.5, warmup=1, steps=100)
    >>> levels = []
    >>> for _ in range(2):
    ...     scheduler.epoch_step()
    ...     levels.append((scheduler.level, scheduler.frozen))
    >>> levels
    [(0.0, False), (0.5, True)]
    """

    def __init__(self, schedule: str, initial: float, target: float, *, warmup: int, steps: int) -> None:
        super().__init__(initial, target, warmup if schedule == "baseline" else warmup + steps)
        self.schedule = schedule
        self.warmup = warmup
        self.steps = steps
        self.level = initial if warmup == 0 else 0.0

    def epoch_step(self) -> None:
        """Begin the next epoch: set its level, then freeze if it is time."""
        Scheduler.epoch_step(self)
        self._set(self._level_of_epoch())
        if self.frozen:
            self._on_freeze()

    def _level_of_epoch(self) -> float:
        epoch = self.current_epoch - self.warmup
        if epoch < 0:
            return 0.0
        return PRUNING_SCHEDULES[self.schedule](epoch, self.initial, self.target, self.steps)
