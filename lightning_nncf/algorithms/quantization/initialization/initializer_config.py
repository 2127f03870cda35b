"""Configuration of what happens between building the quantizers and the first training step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from lightning_nncf.algorithms.quantization.range_floor import RangeFloor
from lightning_nncf.config.algorithm import BatchNormAdaptationConfig
from lightning_nncf.config.base import Scopes, StrictModel, as_tuple
from lightning_nncf.config.problems import ConfigProblemsError, Problem
from lightning_nncf.config.reading import read_file

__all__ = [
    "BiasCorrectionConfig",
    "PercentileConfig",
    "PrecisionConfig",
    "QuantizationInitializerConfig",
    "QuantizerGroup",
    "RangeConfig",
    "RangeType",
    "SmoothQuantConfig",
]

QuantizerGroup = Literal["weights", "activations"]
Bits = Annotated[int, Field(ge=2, le=8)]
RangeType = Literal[
    "min_max", "mean_min_max", "mixed_min_max", "threesigma", "percentile", "mean_percentile", "least_squares"
]


class PercentileConfig(StrictModel):
    """Which percentiles the percentile range initializers take."""

    min_percentile: float = Field(0.1, ge=0, le=100)
    """Percentile of the data that becomes the low end."""

    max_percentile: float = Field(99.9, ge=0, le=100)
    """Percentile of the data that becomes the high end."""


class RangeConfig(StrictModel):
    """How the ranges of quantizers are found from data before training."""

    type: RangeType = "mixed_min_max"
    """Statistic the range comes from. `least_squares` narrows the ranges of weights to where their bit width changes
    them least, which matters below 8 bits, and is `mixed_min_max` for activations; the others are NNCF's."""

    num_init_samples: int = Field(256, ge=0)
    """Samples of the training data to look at; 0 skips the initialization."""

    params: PercentileConfig = PercentileConfig()
    """Settings of the percentile types."""

    target_quantizer_group: QuantizerGroup | None = None
    """Apply to quantizers of weights or of activations only; absent means both."""

    ignored_scopes: Scopes = ()
    """Quantizers that this entry does not concern."""

    target_scopes: Scopes | None = None
    """Quantizers that this entry concerns; absent means all."""


def _as_pairs(value: object) -> object:
    """Read bit widths with lists of quantizers, in place or from a file, as pairs of one bit width and one quantizer.

    >>> _as_pairs({"8": ["conv1|WEIGHT", "conv2|WEIGHT"], "4": "fc|WEIGHT"})
    [(8, 'conv1|WEIGHT'), (8, 'conv2|WEIGHT'), (4, 'fc|WEIGHT')]
    """
    if isinstance(value, (str, Path)):
        value = read_file(Path(value).expanduser())
    if not isinstance(value, Mapping):
        return value
    pairs = []
    for bits, names in value.items():
        number = int(bits) if isinstance(bits, str) and bits.isdigit() else bits
        pairs += [(number, name) for name in ([names] if isinstance(names, str) else names)]
    return pairs


class PrecisionConfig(StrictModel):
    """How the bit width of each quantizer is chosen in mixed precision."""

    type: Literal["hawq", "autoq", "manual"] = "manual"
    """Method."""

    bits: tuple[Bits, ...] | None = Field(None, strict=False, min_length=1)
    """Bit widths to choose from, default 2, 4 and 8; a quantizer never gets more than the section says otherwise."""

    num_data_points: int = Field(100, ge=1)
    """Samples used to estimate Hessian traces."""

    iter_number: int | None = Field(None, ge=0)
    """Iterations of the method: random vectors for `hawq`, default 200; episodes for `autoq`, default 300."""

    tolerance: float = Field(1e-4, gt=0)
    """Relative change of the trace at which its estimation stops."""

    compression_ratio: float | None = Field(None, gt=0)
    """Target of the method. `hawq`: how much less is spent than in 8 bits, default 1.5. `autoq`: largest size of the
    weights as a share of their size in 32 bits, default 0.15."""

    compression_ratio_of: Literal["flops", "size"] = "flops"
    """What the ratio of `hawq` is about: FLOPs weighted by the larger bit width of weight and input, or weights
    weighted by theirs."""

    target_quantizer_group: QuantizerGroup | None = None
    """Choose bit widths for quantizers of weights or of activations only; absent means for both."""

    eval_subset_ratio: float = Field(1.0, gt=0, le=1)
    """Share of the validation data that `autoq` looks at in each episode."""

    metric: str | None = None
    """Logged validation metric that `autoq` maximizes, or with a leading minus sign minimizes; absent takes the one
    that a checkpoint or early-stopping callback monitors, or the only one that is logged."""

    warmup_iter_number: int | None = Field(None, ge=0)
    """Episodes of `autoq` with random actions before it learns, default 10."""

    bitwidth_per_scope: Annotated[
        tuple[Annotated[tuple[Bits, str], Field(strict=False)], ...],
        Field(strict=False),
        BeforeValidator(_as_pairs, json_schema_input_type=list[tuple[Bits, str]] | dict[str, str | list[str]] | str),
    ] = ()
    """Bit widths of single quantizers for `manual`: pairs ``[bits, quantizer]``, or bits with lists of quantizers, or
    the path of a JSON or YAML file with the latter. A quantizer is named as in the table of layers, by a scope with
    ``|WEIGHT``, ``|OUTPUT`` or ``|INPUT0``, or as NNCF named it."""

    traces_per_layer_path: str | None = None
    """File with traces computed earlier."""

    dump_init_precision_data: bool = False
    """Whether to write what the method computed."""

    bitwidth_assignment_mode: Literal["liberal", "strict"] = "liberal"
    """Whether adjacent quantizers must have equal bit widths."""


class SmoothQuantConfig(StrictModel):
    """Moving of large values from channels of activations into the weights behind them, before ranges are set."""

    alpha: float = Field(0.5, ge=0, le=1)
    """How much of the range goes into the weights: 0 evens out the weights, 1 the activations."""

    num_samples: int = Field(256, ge=1)
    """Samples of the training data to look at."""


class BiasCorrectionConfig(StrictModel):
    """Moving of biases so that the means of quantized layers are those of float layers, after ranges are set."""

    num_samples: int = Field(256, ge=1)
    """Samples of the training data in each pass; there is one pass for each layer and one before them."""


class QuantizationInitializerConfig(StrictModel):
    """What happens between building the quantizers and the first training step."""

    range: Annotated[
        tuple[RangeConfig, ...],
        BeforeValidator(as_tuple, json_schema_input_type=RangeConfig | list[RangeConfig]),
    ] = (RangeConfig(),)
    """Range initialization: one entry, or a list in which every quantizer is concerned by exactly one."""

    range_floor: RangeFloor = "data"
    """How small ranges may become. `data`: as small as what they hold, down to 1e-12; a channel of zeros gets what its
    neighbours have. `nncf`: scales are at least 0.1, and widths of asymmetric ranges 1 % of the widest channel's."""

    batchnorm_adaptation: BatchNormAdaptationConfig = BatchNormAdaptationConfig()
    """Adaptation of batch normalization."""

    precision: PrecisionConfig | None = None
    """Mixed precision; absent means the same bit width everywhere."""

    smooth_quant: SmoothQuantConfig | None = None
    """SmoothQuant for linear layers behind norms; absent means none."""

    bias_correction: BiasCorrectionConfig | None = None
    """Correction of biases; absent means none."""

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if not self.range:
            raise ConfigProblemsError([Problem(("range",), "must hold at least one entry, got an empty list")])
        return self
