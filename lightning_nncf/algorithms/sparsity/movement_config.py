"""Configuration of movement sparsity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from lightning_nncf.algorithms.sparsity.config import SparsityConfig
from lightning_nncf.config.base import Scopes, StrictModel
from lightning_nncf.config.problems import ConfigProblemsError, Problem
from lightning_nncf.config.registry import register_algorithm_config

__all__ = ["MovementSparsityConfig", "StructureConfig"]


class StructureConfig(StrictModel):
    """Which weights of a layer live or die together."""

    mode: Literal["fine", "block", "per_dim"] = "fine"
    """Single weights, blocks, or whole rows or columns."""

    sparse_factors: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(None, strict=False)
    """Height and width of a block."""

    axis: Literal[0, 1] | None = None
    """For `per_dim`: 0 for rows (outputs), 1 for columns (inputs)."""

    target_scopes: Scopes = ()
    """The layers; of several entries that match, the first counts."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mode == "block" and (self.sparse_factors is None or len(self.sparse_factors) != 2):
            text = f"must be two numbers in the mode 'block', got {self.sparse_factors}"
            raise ConfigProblemsError([Problem(("sparse_factors",), text)])
        if self.mode == "per_dim" and self.axis is None:
            raise ConfigProblemsError([Problem(("axis",), "is required in the mode 'per_dim'")])
        return self


class MovementScheduleConfig(StrictModel):
    """When and how strongly weights are dropped."""

    warmup_start_epoch: int = Field(ge=0)
    """Epoch from which weights are dropped."""

    warmup_end_epoch: int = Field(ge=1)
    """Epoch from which masks are frozen."""

    importance_regularization_factor: float = Field(ge=0)
    """Weight of the loss on importances at the end of the warmup; more drops more."""

    enable_structured_masking: bool = True
    """Whether masks become structured when they are frozen: attention heads and hidden channels of which no layer keeps
    a weight are dropped whole, all others are kept whole, so that what is dropped can be removed from the network."""

    power: float = Field(3, gt=0)
    """Exponent of the courses of threshold and factor."""

    init_importance_threshold: float | None = None
    """Threshold at the start of the warmup; absent takes the one that drops a thousandth of all weights."""

    final_importance_threshold: float = 0.0
    """Threshold at its end."""

    steps_per_epoch: int | None = Field(None, ge=1)
    """Optimizer steps in an epoch; absent means that they are measured."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup_end_epoch <= self.warmup_start_epoch:
            text = f"must be greater than `warmup_start_epoch` ({self.warmup_start_epoch}), got {self.warmup_end_epoch}"
            raise ConfigProblemsError([Problem(("warmup_end_epoch",), text)])
        return self


class MovementSparsityConfig(SparsityConfig):
    """Drops weights of linear layers that training moves towards zero."""

    algorithm: Literal["movement_sparsity"] = "movement_sparsity"
    """Name of the algorithm."""

    params: MovementScheduleConfig
    """Schedule and strength."""

    sparse_structure_by_scopes: tuple[StructureConfig, ...] = Field((), strict=False)
    """Structures by scope; layers that no entry names are sparse weight by weight."""


register_algorithm_config("movement_sparsity", MovementSparsityConfig)
