"""Configurations of the sparsity algorithms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from lightning_nncf.algorithms.sparsity.schedule_config import (
    FollowedScheduleConfig,
    Level,
    LevelScheduleConfig,
    ScheduleConfig,
)
from lightning_nncf.config.algorithm import AlgorithmConfig, RootSettings
from lightning_nncf.config.base import StrictModel
from lightning_nncf.config.problems import ConfigProblemsError, Problem
from lightning_nncf.config.registry import register_algorithm_config

__all__ = [
    "ConstSparsityConfig",
    "MagnitudeSparsityConfig",
    "NMScheduleConfig",
    "NMSparsityConfig",
    "RBSparsityConfig",
    "RegrowthConfig",
    "SparsityConfig",
]


class SparsityConfig(AlgorithmConfig):
    """Base of the algorithms that put a mask on weights; a network has one of them."""

    def problems_in(self, root: RootSettings) -> Iterable[Problem]:
        """Refuse a second mask on the same weights."""
        masking = [section.algorithm for section in root.compression if isinstance(section, SparsityConfig)]
        if len(masking) > 1:
            yield Problem(("compression",), f"may hold one sparsity algorithm, got {' and '.join(masking)}")


class RegrowthConfig(StrictModel):
    """Dynamic sparse training: dropped weights whose gradient is large come back, as many others go."""

    fraction: float = Field(0.3, gt=0, lt=1)
    """Share of the weights in use that change places at the first update."""

    end_epoch: int | None = Field(None, ge=1)
    """Epoch in which the share has fallen to 0, along half a cosine; absent means `sparsity_freeze_epoch`."""


class MagnitudeScheduleConfig(LevelScheduleConfig):
    """Schedule of magnitude sparsity."""

    weight_importance: Literal["normed_abs", "abs"] = "normed_abs"
    """What is compared: absolute values, or those divided by the L2 norm of their layer."""

    regrow: RegrowthConfig | None = None
    """Regrowth of dropped weights; absent means that masks follow the magnitudes alone."""


class MagnitudeSparsityConfig(SparsityConfig):
    """Drops the weights of the smallest magnitude.

    >>> MagnitudeSparsityConfig(params={"sparsity_target": 1.3})
    Traceback (most recent call last):
    ...
    lightning_nncf.config.problems.ConfigProblemsError: `params.sparsity_target` must be less than 1.0, got 1.3
    """

    algorithm: Literal["magnitude_sparsity"] = "magnitude_sparsity"
    """Name of the algorithm."""

    sparsity_init: Level = 0.0
    """Level before the first epoch, in [0, 1)."""

    params: MagnitudeScheduleConfig = MagnitudeScheduleConfig()
    """Schedule and its target."""


class RBScheduleConfig(FollowedScheduleConfig):
    """Schedule of RB sparsity."""

    check_sparsity_masks: bool = False
    """Whether to check in every epoch that all processes have equal masks."""


class RBSparsityConfig(SparsityConfig):
    """Learns which weights to drop, by a loss on their expected number (regularization-based)."""

    algorithm: Literal["rb_sparsity"] = "rb_sparsity"
    """Name of the algorithm."""

    sparsity_init: Level = 0.0
    """Level before the first epoch, in [0, 1)."""

    params: RBScheduleConfig = RBScheduleConfig()
    """Schedule and its target."""


class ConstSparsityConfig(SparsityConfig):
    """Keeps the zeros that weights have while another algorithm trains them."""

    algorithm: Literal["const_sparsity"] = "const_sparsity"
    """Name of the algorithm."""


class NMScheduleConfig(ScheduleConfig):
    """Schedule of n:m sparsity: which share of all groups is sparse."""

    sparsity_target_epoch: int = Field(0, ge=0)
    """Epoch in which all groups are sparse; 0 makes them so at once."""

    sparsity_freeze_epoch: int = Field(1, ge=0)
    """Epoch from which masks do not change any more."""


class NMSparsityConfig(SparsityConfig):
    """Keeps n of every m weights in a row along the input channels, the pattern that sparse hardware runs.

    >>> NMSparsityConfig().level
    0.5
    """

    algorithm: Literal["n_m_sparsity"] = "n_m_sparsity"
    """Name of the algorithm."""

    n: int = Field(2, ge=1)
    """How many weights of a group are kept."""

    m: int = Field(4, ge=2)
    """Weights in a group."""

    params: NMScheduleConfig = NMScheduleConfig()
    """Schedule; its levels run from 0 to ``1 - n / m``."""

    @property
    def level(self) -> float:
        """Share of zeros once all groups are sparse."""
        return 1 - self.n / self.m

    @model_validator(mode="after")
    def _check_pattern(self) -> Self:
        if self.n >= self.m:
            raise ConfigProblemsError([Problem(("n",), f"must be less than `m` ({self.m}), got {self.n}")])
        levels = self.params.multistep_sparsity_levels
        if self.params.schedule == "multistep" and abs(levels[-1] - self.level) > 1e-6:
            text = f"must end with {self.level:g} (1 - n / m), got {list(levels)}"
            raise ConfigProblemsError([Problem(("params", "multistep_sparsity_levels"), text)])
        return self


register_algorithm_config("magnitude_sparsity", MagnitudeSparsityConfig)
register_algorithm_config("rb_sparsity", RBSparsityConfig)
register_algorithm_config("const_sparsity", ConstSparsityConfig)
register_algorithm_config("n_m_sparsity", NMSparsityConfig)
