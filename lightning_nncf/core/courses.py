"""What the schedules of a configuration will do, without a network."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.registry import create_algorithms
from lightning_nncf.schedules.chart import chart
from lightning_nncf.schedules.level import LevelScheduler

__all__ = ["Course", "courses", "courses_text"]


@dataclass(frozen=True, kw_only=True)
class Course:
    """Levels of one algorithm.

    Args:
        algorithm: Its name.
        levels: Level at the end of each epoch; what is frozen stays at its level.
        freeze_epoch: First epoch in which nothing changes any more.
    """

    algorithm: str
    levels: tuple[float, ...]
    freeze_epoch: int


def courses(config: NNCFConfig, epochs: int, steps_per_epoch: int = 1) -> list[Course]:
    """Run the schedulers of all algorithms that have a level; adaptive ones as if the network followed at once.

    Args:
        config: The configuration.
        epochs: Epochs to run.
        steps_per_epoch: Optimizer steps in each.

    >>> params = {"sparsity_target_epoch": 2, "power": 1}
    >>> config = NNCFConfig.load({"compression": {"algorithm": "magnitude_sparsity", "params": params}})
    >>> courses(config, 4)[0].levels
    (0.0, 0.25, 0.5, 0.5)
    """
    found = []
    for algorithm in create_algorithms(config):
        scheduler = algorithm.scheduler
        if not isinstance(scheduler, LevelScheduler):
            continue
        scheduler.announce_steps(steps_per_epoch)
        follower = _Follower(float(scheduler.level))
        scheduler.attach(follower.follow, follower.freeze)
        levels = []
        for _ in range(epochs):
            scheduler.epoch_step()
            for _ in range(steps_per_epoch):
                scheduler.step()
            levels.append(follower.level)
        found.append(Course(algorithm=algorithm.name, levels=tuple(levels), freeze_epoch=scheduler.freeze_epoch))
    return found


class _Follower:
    """Stands in for the masks: at the level of the schedule until it is frozen."""

    def __init__(self, level: float) -> None:
        self.level = level
        self.frozen = False

    def follow(self, level: float) -> None:
        if not self.frozen:
            self.level = level

    def freeze(self) -> None:
        self.frozen = True


def courses_text(config: NNCFConfig, epochs: int, steps_per_epoch: int = 1) -> str:
    """Draw the courses of a configuration; arguments as in `courses`."""
    drawn = [
        f"{course.algorithm}\n{chart(course.levels, course.freeze_epoch)}"
        for course in courses(config, epochs, steps_per_epoch)
    ]
    return "\n\n".join(drawn) or "no algorithm of this configuration has a schedule"
