"""Configuration of filter pruning: every key of NNCF's section, and ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from lightning_nncf.algorithms.pruning.functional import Importance
from lightning_nncf.config.algorithm import AlgorithmConfig, BatchNormAdaptationConfig
from lightning_nncf.config.base import StrictModel
from lightning_nncf.config.problems import ConfigProblemsError, Problem
from lightning_nncf.config.registry import register_algorithm_config

__all__ = ["FilterPruningConfig", "LegrConfig", "PruningInitializerConfig", "PruningParams"]

Share = Annotated[float, Field(ge=0, lt=1)]
"""A number in [0, 1)."""
DEFAULT_TARGET = 0.5


class LegrConfig(StrictModel):
    """Settings of learned global ranking: an evolution of one scale and shift of importance per layer.

    Chin et al., "Towards Efficient Model Compression via Learned Global Ranking", CVPR 2020.
    """

    generations: int = Field(400, ge=1)
    """Candidates that are tried."""

    train_steps: int = Field(200, ge=0)
    """Training steps after which a candidate is judged."""

    max_pruning: float | None = Field(None, gt=0, lt=1)
    """FLOPs to remove in the trials; absent means the target, else 0.8."""

    random_seed: int = 42
    """Seed of the evolution."""

    population_size: int = Field(64, ge=1)
    """Candidates kept."""

    num_samples: int = Field(16, ge=1)
    """Candidates in a tournament."""

    mutate_percent: float = Field(0.1, gt=0, le=1)
    """Share of layers that change in a mutation."""

    scale_sigma: float = Field(1.0, gt=0)
    """Standard deviation of the logarithm of the scale at the start."""


class PruningInitializerConfig(StrictModel):
    """What happens before the first training step."""

    batchnorm_adaptation: BatchNormAdaptationConfig = BatchNormAdaptationConfig()
    """Adaptation of batch normalization, when filters are masked from the start."""


class PruningParams(StrictModel):
    """How many filters go, when, and which."""

    schedule: Literal["exponential", "exponential_with_bias", "baseline"] = "exponential"
    """How the level rises from `pruning_init` to the target; `baseline` jumps there."""

    pruning_target: Share | None = None
    """Share of the filters of each group to remove in the end, in [0, 1); 0.5 if no target is given."""

    pruning_flops_target: Share | None = None
    """Share of the FLOPs to remove in the end, in [0, 1)."""

    pruning_latency_target: Share | None = None
    """Share of the latency to remove in the end, in [0, 1), measured in ONNX Runtime on this machine."""

    num_init_steps: int = Field(0, ge=0)
    """Epochs before pruning begins."""

    pruning_steps: int = Field(100, ge=1)
    """Epochs in which the level rises."""

    filter_importance: Importance = "L2"
    """What makes a filter important: its norm, or its distance to the others of the layer."""

    interlayer_ranking_type: Literal["unweighted_ranking", "learned_ranking"] = "unweighted_ranking"
    """Whether importance in different layers is made comparable by learning (LeGR)."""

    all_weights: bool = False
    """Rank the filters of all groups together instead of removing the same share of each."""

    prune_first_conv: bool = False
    """Whether convolutions that see an input of the network are pruned."""

    prune_last_conv: bool = False
    """Whether convolutions next to an output, and producers of linear layers, are pruned; so are linear layers then."""

    prune_downsample_convs: bool = False
    """Whether convolutions with a stride are pruned."""

    prune_batch_norms: bool = True
    """Whether scale and shift of normalizations are masked with the filters."""

    zero_grad: bool = True
    """Whether gradients of masked weights are set to zero."""

    grouping: Literal["nncf", "full"] = "nncf"
    """What can be pruned: what NNCF prunes, or everything the analysis can follow (then the `prune_*_conv*` switches
    have no effect)."""

    shrink_at: int | None = Field(None, ge=0)
    """Epoch before which masked filters are physically removed, so that the rest of the training is faster; absent
    removes them at export only."""

    save_ranking_coeffs_path: str | None = None
    """File to write learned ranking coefficients to."""

    load_ranking_coeffs_path: str | None = None
    """File to read ranking coefficients from instead of learning them."""

    legr_params: LegrConfig = LegrConfig()
    """Settings of `learned_ranking`."""

    @classmethod
    def upgrade(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Let learned ranking imply what it needs: one ranking for all, and every layer NNCF can follow."""
        if values.get("interlayer_ranking_type") == "learned_ranking":
            if values.get("all_weights") is False:
                text = "must be true, or absent, with `interlayer_ranking_type: learned_ranking`, got false"
                raise ConfigProblemsError([Problem(("all_weights",), text)])
            for key in ("all_weights", "prune_first_conv", "prune_downsample_convs"):
                values.setdefault(key, True)
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [f"pruning_{kind}target" for kind in ("", "flops_", "latency_")]
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            others = " and ".join(f"`{name}`" for name in given[:-1])
            raise ConfigProblemsError([Problem((given[-1],), f"cannot be given together with {others}; keep one")])
        return self

    @property
    def target(self) -> float:
        """The level to reach, of whichever kind."""
        for level in (self.pruning_target, self.pruning_flops_target, self.pruning_latency_target):
            if level is not None:
                return level
        return DEFAULT_TARGET


class FilterPruningConfig(AlgorithmConfig):
    """Filter pruning.

    >>> FilterPruningConfig(params={"pruning_target": 0.4}).params.target
    0.4
    """

    algorithm: Literal["filter_pruning"] = "filter_pruning"
    """Name of the algorithm."""

    pruning_init: Share = 0.0
    """Level at the start, in [0, 1)."""

    params: PruningParams = PruningParams()
    """Target, schedule, and what may be pruned."""

    initializer: PruningInitializerConfig = PruningInitializerConfig()
    """Preparation before the first training step."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        target = self.params.target
        if self.pruning_init > target:
            text = f"must not exceed the target of {target}, got {self.pruning_init}"
            raise ConfigProblemsError([Problem(("pruning_init",), text)])
        if self.params.schedule == "exponential_with_bias" and not self.pruning_init < 0.75 * target:
            text = f"must be below three quarters of the target of {target} with `schedule: exponential_with_bias`"
            raise ConfigProblemsError([Problem(("pruning_init",), f"{text}, got {self.pruning_init}")])
        return self


register_algorithm_config("filter_pruning", FilterPruningConfig)
