"""Configuration of accuracy-aware training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from lightning_nncf.config.base import StrictModel
from lightning_nncf.config.problems import ConfigProblemsError, Problem

__all__ = ["AccuracyAwareConfig", "AccuracyAwareParams"]


class AccuracyAwareParams(StrictModel):
    """What compression may cost, and how long training may try."""

    maximal_relative_accuracy_degradation: float | None = Field(None, ge=0)
    """Percent of the metric before compression that may be lost; 1 unless the absolute one is given."""

    maximal_absolute_accuracy_degradation: float | None = Field(None, ge=0)
    """What may be lost, in the unit of the metric."""

    maximal_total_epochs: int = Field(10000, ge=0)
    """Epochs after which training ends; so it does at the Trainer's `max_epochs`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        both = (self.maximal_relative_accuracy_degradation, self.maximal_absolute_accuracy_degradation)
        if None not in both:
            text = "cannot be given beside `maximal_relative_accuracy_degradation`; keep one of them"
            raise ConfigProblemsError([Problem(("maximal_absolute_accuracy_degradation",), text)])
        return self


class AccuracyAwareConfig(StrictModel):
    """Training that ends once the compressed network is as good as it has to be.

    >>> AccuracyAwareConfig(mode="early_exit").params.maximal_total_epochs
    10000
    """

    mode: Literal["early_exit"]
    """`early_exit` ends training in the first epoch whose network is fully compressed and lost no more than allowed."""

    params: AccuracyAwareParams = AccuracyAwareParams()
    """The target."""

    monitor: str | None = None
    """Metric of validation that is to be held; absent means that of the checkpoint or early-stopping callback, else the
    only one that is logged."""

    higher_is_better: bool | None = None
    """Whether `monitor` is to be large; absent means by its name: a loss is to be small."""

    uncompressed_accuracy: float | None = None
    """The metric before compression; absent means that it is measured."""

    @field_validator("mode", mode="before")
    @classmethod
    def _refuse_levels(cls, value: object) -> object:
        if value == "adaptive_compression_level":
            raise ValueError("'adaptive_compression_level' is a mode of NNCF that is not available in this version")
        return value
