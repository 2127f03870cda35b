"""Keys of the schedules of sparsity, as NNCF spells them, and the scheduler they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from lightning_nncf.config.base import StrictModel
from lightning_nncf.config.problems import ConfigProblemsError, Problem
from lightning_nncf.schedules.level import (
    AdaptiveScheduler,
    ExponentialScheduler,
    LevelScheduler,
    MultistepScheduler,
    PolynomialScheduler,
)

__all__ = ["FollowedScheduleConfig", "Level", "LevelScheduleConfig", "ScheduleConfig", "ScheduleName"]

ScheduleName = Literal["polynomial", "exponential", "adaptive", "multistep"]
Level = Annotated[float, Field(ge=0, lt=1)]
"""A sparsity level, in [0, 1)."""


class ScheduleConfig(StrictModel):
    """When a level rises and when masks are frozen."""

    schedule: ScheduleName = "polynomial"
    """Course of the level."""

    sparsity_target_epoch: int = Field(90, ge=0)
    """Epoch in which the polynomial and exponential schedules reach the target."""

    sparsity_freeze_epoch: int = Field(100, ge=0)
    """Epoch from which masks do not change any more: they are frozen before a new level could change them."""

    power: float = Field(0.9, gt=0)
    """Exponent of the polynomial schedule."""

    concave: bool = True
    """Whether the polynomial schedule rises fast at first."""

    update_per_optimizer_step: bool = False
    """Whether the polynomial schedule sets the level at every optimizer step instead of every epoch."""

    steps_per_epoch: int | None = Field(None, ge=1)
    """Optimizer steps in an epoch, for updates per step; absent means that they are measured."""

    multistep_steps: tuple[Annotated[int, Field(ge=0)], ...] = Field((90,), strict=False)
    """Epochs in which the next level of the multistep schedule begins, ascending."""

    multistep_sparsity_levels: tuple[Level, ...] = Field((0.1, 0.5), strict=False)
    """Levels of the multistep schedule, one more than steps."""

    patience: int = Field(1, ge=1)
    """Epochs for which the level must be reached before the adaptive schedule raises it."""

    step: float = Field(0.05, gt=0, lt=1)
    """By how much the adaptive schedule raises the level."""

    eps: float = Field(0.03, ge=0, lt=1)
    """How much less than the level counts as reached in the adaptive schedule."""

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        steps, levels = self.multistep_steps, self.multistep_sparsity_levels
        if self.schedule != "multistep":
            return self
        if not steps or list(steps) != sorted(set(steps)):
            text = f"must list at least one epoch, ascending, got {list(steps)}"
            raise ConfigProblemsError([Problem(("multistep_steps",), text)])
        if len(levels) != len(steps) + 1:
            text = (
                f"must hold one level more than `multistep_steps` has epochs: {len(steps) + 1} levels for epochs "
                f"{list(steps)}, got {list(levels)}"
            )
            raise ConfigProblemsError([Problem(("multistep_sparsity_levels",), text)])
        return self

    def scheduler(self, initial: float, target: float, current: Callable[[], float]) -> LevelScheduler:
        """Make the scheduler.

        Args:
            initial: Level before the first epoch.
            target: Level at the end; the multistep schedule brings its own two.
            current: Returns the level that the network has reached.
        """
        freeze = self.sparsity_freeze_epoch
        if self.schedule == "multistep":
            return MultistepScheduler(self.multistep_steps, self.multistep_sparsity_levels, freeze)
        if self.schedule == "adaptive":
            return AdaptiveScheduler(
                initial,
                target,
                freeze,
                patience=self.patience,
                step=self.step,
                tolerance=self.eps,
                current=current,
            )
        if self.schedule == "exponential":
            return ExponentialScheduler(initial, target, self.sparsity_target_epoch, freeze)
        return PolynomialScheduler(
            initial,
            target,
            self.sparsity_target_epoch,
            freeze,
            power=self.power,
            concave=self.concave,
            per_step=self.update_per_optimizer_step,
            steps_per_epoch=self.steps_per_epoch,
        )


class LevelScheduleConfig(ScheduleConfig):
    """A schedule of one level for the network, or of one per layer."""

    sparsity_target: Level = 0.5
    """Share of weights to be zero at the end, in [0, 1)."""

    sparsity_level_setting_mode: Literal["global", "local"] = "global"
    """One level for all layers together, or one for each."""

    sparsity_levels: Mapping[str, Level] = {}
    """Targets of single layers by scope, for the local mode; layers that none concerns stay dense."""

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        if self.sparsity_level_setting_mode == "local" and not self.sparsity_levels:
            text = "is required in the local mode: levels by scope, as in {'layer1': 0.5, 'fc': 0.8}"
            raise ConfigProblemsError([Problem(("sparsity_levels",), text)])
        if self.sparsity_level_setting_mode == "global" and self.sparsity_levels:
            text = "needs `sparsity_level_setting_mode: local`; in the global mode one level holds for all layers"
            raise ConfigProblemsError([Problem(("sparsity_levels",), text)])
        return self


class FollowedScheduleConfig(LevelScheduleConfig):
    """A schedule for masks that are learned and follow the level."""

    schedule: ScheduleName = "exponential"
    """Course of the level."""
