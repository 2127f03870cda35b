"""The level of pruning by epoch."""

from __future__ import annotations

from lightning_nncf.schedules.level import LevelScheduler
from lightning_nncf.schedules.pruning import PRUNING_SCHEDULES

__all__ = ["PruningScheduler"]


class PruningScheduler(LevelScheduler):
    """Nothing is pruned during the warmup; then the level follows a schedule, and in the end it is frozen.

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

    def _level_of_epoch(self) -> float:
        epoch = self.current_epoch - self.warmup
        if epoch < 0:
            return 0.0
        return PRUNING_SCHEDULES[self.schedule](epoch, self.initial, self.target, self.steps)
