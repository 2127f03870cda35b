"""Schedulers that move the level of an algorithm along a schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from lightning_nncf.errors import ConfigError
from lightning_nncf.schedules.adaptive import AdaptiveLevel, adaptive_level
from lightning_nncf.schedules.exponential import exponential_level
from lightning_nncf.schedules.multistep import multistep_level
from lightning_nncf.schedules.polynomial import polynomial_level
from lightning_nncf.schedules.scheduler import Scheduler, nothing

__all__ = [
    "AdaptiveScheduler",
    "ExponentialScheduler",
    "LevelScheduler",
    "MultistepScheduler",
    "PolynomialScheduler",
]


class LevelScheduler(Scheduler, ABC):
    """Sets a level at the beginning of every epoch, and freezes what it set at some epoch.

    Args:
        initial: Level before the first epoch.
        target: Level at the end.
        freeze_epoch: First epoch in which nothing changes any more.
    """

    def __init__(self, initial: float, target: float, freeze_epoch: int) -> None:
        super().__init__()
        self.initial = initial
        self.target = target
        self.freeze_epoch = freeze_epoch
        self.level = initial
        self._on_level: Callable[[float], None] = nothing
        self._on_freeze: Callable[[], None] = nothing
        self._on_step: Callable[[int], None] = nothing

    def attach(
        self,
        on_level: Callable[[float], None],
        on_freeze: Callable[[], None],
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        """Say what a new level, freezing and an optimizer step do.

        Args:
            on_level: Called with the level whenever a schedule sets it; the schedule goes on when things are frozen.
            on_freeze: Called at the beginning of each epoch from ``freeze_epoch`` on, before the level is set.
            on_step: Called with the number of the optimizer step that begins.
        """
        self._on_level = on_level
        self._on_freeze = on_freeze
        self._on_step = on_step or self._on_step

    @property
    def frozen(self) -> bool:
        """Whether the epoch has come from which nothing changes."""
        return self.current_epoch >= self.freeze_epoch

    def epoch_step(self) -> None:
        """Begin the next epoch: freeze if it is time, then set its level, which what is frozen does not follow."""
        super().epoch_step()
        if self.frozen:
            self._on_freeze()
        self._set(self._level_of_epoch())

    def step(self) -> None:
        """Begin the next optimizer step."""
        super().step()
        self._on_step(self.current_step)

    @abstractmethod
    def _level_of_epoch(self) -> float:
        """Return the level at the beginning of the current epoch."""

    def _set(self, level: float) -> None:
        self.level = level
        self._on_level(level)

    def state_dict(self) -> dict[str, Any]:
        """Return counters and level."""
        return {**super().state_dict(), "level": self.level}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set counters and level from `state_dict`; the algorithm is not told."""
        super().load_state_dict(state)
        self.level = float(state["level"])


class ExponentialScheduler(LevelScheduler):
    """The density falls by the same factor in every epoch.

    Args:
        initial: Level before the first epoch.
        target: Level at the end.
        target_epoch: Epoch in which the target is reached; 0 means at once.
        freeze_epoch: First epoch in which nothing changes any more.
    """

    def __init__(self, initial: float, target: float, target_epoch: int, freeze_epoch: int) -> None:
        super().__init__(initial, target, freeze_epoch)
        self.target_epoch = target_epoch

    def _level_of_epoch(self) -> float:
        progress = self.current_epoch / self.target_epoch if self.target_epoch else 1.0
        return exponential_level(progress, self.initial, self.target)


class MultistepScheduler(LevelScheduler):
    """Levels that change at given epochs.

    Args:
        steps: Epochs in which the next level begins.
        levels: One level more than there are steps.
        freeze_epoch: First epoch in which nothing changes any more.
    """

    def __init__(self, steps: Sequence[int], levels: Sequence[float], freeze_epoch: int) -> None:
        super().__init__(levels[0], levels[-1], freeze_epoch)
        self.steps = tuple(steps)
        self.levels = tuple(levels)
        self.target_epoch = max(steps, default=0)

    def _level_of_epoch(self) -> float:
        return multistep_level(self.current_epoch, self.steps, self.levels)


class AdaptiveScheduler(LevelScheduler):
    """The level rises whenever the network has followed it for some epochs.

    Args:
        initial: Level before the first epoch.
        target: Level at the end.
        freeze_epoch: First epoch in which nothing changes any more.
        patience: Epochs in which the level must be reached before it rises.
        step: By how much it rises.
        tolerance: How much less than the level counts as reached.
        current: Returns the level that the network has really reached.
    """

    def __init__(
        self,
        initial: float,
        target: float,
        freeze_epoch: int,
        *,
        patience: int = 1,
        step: float = 0.05,
        tolerance: float = 0.03,
        current: Callable[[], float],
    ) -> None:
        super().__init__(initial, target, freeze_epoch)
        self.patience = patience
        self.step_size = step
        self.tolerance = tolerance
        self._current = current
        self._reached = 0

    def _level_of_epoch(self) -> float:
        state = adaptive_level(
            AdaptiveLevel(level=self.level, reached=self._reached),
            self._current(),
            self.target,
            patience=self.patience,
            step=self.step_size,
            tolerance=self.tolerance,
        )
        self._reached = state.reached
        return state.level

    def state_dict(self) -> dict[str, Any]:
        """Return counters, level and how long it has been reached."""
        return {**super().state_dict(), "reached": self._reached}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set everything from `state_dict`."""
        super().load_state_dict(state)
        self._reached = int(state["reached"])


class PolynomialScheduler(LevelScheduler):
    """Polynomial course, per epoch or per optimizer step.

    Per step the number of steps in an epoch must be known. Without it the first epoch is used to count them, and the
    level stays at the initial one.

    Args:
        initial: Level before the first epoch.
        target: Level at the end.
        target_epoch: Epoch in which the target is reached; 0 means at once.
        freeze_epoch: First epoch in which nothing changes any more.
        power: Exponent.
        concave: Whether the level rises fast at first.
        per_step: Set the level at every optimizer step.
        steps_per_epoch: Optimizer steps in an epoch.
    """

    def __init__(
        self,
        initial: float,
        target: float,
        target_epoch: int,
        freeze_epoch: int,
        *,
        power: float = 0.9,
        concave: bool = True,
        per_step: bool = False,
        steps_per_epoch: int | None = None,
    ) -> None:
        super().__init__(initial, target, freeze_epoch)
        self.target_epoch = target_epoch
        self.power = power
        self.concave = concave
        self.per_step = per_step
        self.steps_per_epoch = steps_per_epoch
        self._steps_in_epoch = 0

    def announce_steps(self, steps_per_epoch: int) -> None:
        """Take the number of optimizer steps per epoch from whoever knows it, unless it was given."""
        if self.steps_per_epoch is None:
            self.steps_per_epoch = steps_per_epoch

    def epoch_step(self) -> None:
        """Begin the next epoch; per step, the epoch before has told how many steps there are."""
        if self.per_step and self.steps_per_epoch is None and self._steps_in_epoch:
            self.steps_per_epoch = self._steps_in_epoch
        self._steps_in_epoch = 0
        super().epoch_step()

    def step(self) -> None:
        """Begin the next optimizer step.

        Raises:
            ConfigError: The epoch has more steps than ``steps_per_epoch``.
        """
        super().step()
        self._steps_in_epoch += 1
        if not self.per_step or self.steps_per_epoch is None:
            return
        if self._steps_in_epoch > self.steps_per_epoch:
            raise ConfigError(
                f"`steps_per_epoch` is {self.steps_per_epoch}, but epoch {self.current_epoch} has another optimizer "
                "step; correct it, or leave it out so that it is measured"
            )
        if not self.frozen:
            self._set(self._level_at(self._steps_in_epoch - 1))

    def _level_of_epoch(self) -> float:
        return self._level_at(0)

    def _level_at(self, step: int) -> float:
        if self.per_step and self.steps_per_epoch is None:
            return self.initial
        epoch = self.current_epoch + (step / self.steps_per_epoch if self.per_step and self.steps_per_epoch else 0)
        progress = epoch / self.target_epoch if self.target_epoch else 1.0
        return polynomial_level(progress, self.initial, self.target, power=self.power, concave=self.concave)

    def state_dict(self) -> dict[str, Any]:
        """Return counters, level and number of steps."""
        return {**super().state_dict(), "steps_per_epoch": self.steps_per_epoch, "steps_in_epoch": self._steps_in_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set everything from `state_dict`."""
        super().load_state_dict(state)
        known = state["steps_per_epoch"]
        self.steps_per_epoch = None if known is None else int(known)
        self._steps_in_epoch = int(state["steps_in_epoch"])
