"""Configuration of quantization: every key of NNCF's section, checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from lightning_nncf.algorithms.quantization.quantizer_config import QuantizationMode
from lightning_nncf.config.algorithm import AlgorithmConfig, BatchNormAdaptationConfig
from lightning_nncf.config.base import Scopes, StrictModel, as_tuple, deprecated
from lightning_nncf.config.problems import ConfigProblemsError, Problem
from lightning_nncf.config.registry import register_algorithm_config

if TYPE_CHECKING:
    from lightning_nncf.config.root import NNCFConfig

__all__ = [
    "GroupConfig",
    "OverflowFix",
    "PrecisionConfig",
    "QuantizationConfig",
    "QuantizationInitializerConfig",
    "QuantizerGroup",
    "RangeConfig",
    "RangeType",
    "StagedConfig",
]

QuantizerGroup = Literal["weights", "activations"]
RangeType = Literal["min_max", "mean_min_max", "mixed_min_max", "threesigma", "percentile", "mean_percentile"]
OverflowFix = Literal["enable", "disable", "first_layer_only"]

AVAILABLE_RANGE_TYPES = ("min_max", "mean_min_max", "mixed_min_max")
AVAILABLE_DEVICES = ("ANY", "CPU", "TRIAL")
_LATER = "is not available in this version"


class PercentileConfig(StrictModel):
    """Which percentiles the percentile range initializers take."""

    min_percentile: float = Field(0.1, ge=0, le=100)
    """Percentile of the data that becomes the low end."""

    max_percentile: float = Field(99.9, ge=0, le=100)
    """Percentile of the data that becomes the high end."""


class RangeConfig(StrictModel):
    """How the ranges of quantizers are found from data before training."""

    type: RangeType = "mixed_min_max"
    """Statistic the range comes from."""

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


class PrecisionConfig(StrictModel):
    """How the bit width of each quantizer is chosen in mixed precision."""

    type: Literal["hawq", "autoq", "manual"] = "manual"
    """Method."""

    bits: tuple[Annotated[int, Field(ge=2, le=8)], ...] | None = Field(None, strict=False)
    """Bit widths to choose from."""

    num_data_points: int = Field(100, ge=1)
    """Samples used to estimate Hessian traces."""

    iter_number: int | None = Field(None, ge=0)
    """Iterations of the method."""

    tolerance: float = Field(1e-4, gt=0)
    """Relative change of the trace at which its estimation stops."""

    compression_ratio: float | None = Field(None, gt=0)
    """Target of the method."""

    eval_subset_ratio: float = Field(1.0, gt=0, le=1)
    """Share of the validation data used for rewards."""

    warmup_iter_number: int | None = Field(None, ge=0)
    """Iterations with random actions before learning."""

    bitwidth_per_scope: tuple[Annotated[tuple[int, str], Field(strict=False)], ...] = Field((), strict=False)
    """Pairs of bit width and quantizer."""

    traces_per_layer_path: str | None = None
    """File with traces computed earlier."""

    dump_init_precision_data: bool = False
    """Whether to write what the method computed."""

    bitwidth_assignment_mode: Literal["liberal", "strict"] = "liberal"
    """Whether adjacent quantizers must have equal bit widths."""


class QuantizationInitializerConfig(StrictModel):
    """What happens between building the quantizers and the first training step."""

    range: Annotated[
        tuple[RangeConfig, ...],
        Field(min_length=1),
        BeforeValidator(as_tuple, json_schema_input_type=RangeConfig | list[RangeConfig]),
    ] = (RangeConfig(),)
    """Range initialization: one entry, or a list in which every quantizer is concerned by exactly one."""

    batchnorm_adaptation: BatchNormAdaptationConfig = BatchNormAdaptationConfig()
    """Adaptation of batch normalization."""

    precision: PrecisionConfig | None = None
    """Mixed precision; absent means the same bit width everywhere."""


class GroupConfig(StrictModel):
    """What all quantizers of weights, or all of activations, must fulfil; absent keys leave the choice open."""

    mode: QuantizationMode | None = None
    """Symmetric or asymmetric ranges; absent means what the preset says."""

    bits: int | None = Field(None, ge=2, le=8)
    """Bit width; absent means 8."""

    signed: bool | None = None
    """Force signed or unsigned levels in symmetric mode; absent lets the data decide."""

    per_channel: bool | None = None
    """One range per channel instead of one per tensor; absent takes the best the device allows."""

    logarithm_scale: bool = False
    """Train the logarithm of the scale instead of the scale."""

    ignored_scopes: Scopes = ()
    """Ops whose tensors of this group are not quantized."""

    target_scopes: Scopes | None = None
    """Ops whose tensors of this group are quantized, and no others."""


class ActivationsConfig(GroupConfig):
    """`GroupConfig` of activations."""

    unified_scale_ops: tuple[Annotated[tuple[str, ...], Field(strict=False)], ...] = Field((), strict=False)
    """Lists of ops whose quantizers share one range."""

    @classmethod
    def upgrade(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Read the older name of ``unified_scale_ops``."""
        if "linked_quantizer_scopes" in values:
            deprecated("linked_quantizer_scopes", "write `unified_scale_ops`")
            values.setdefault("unified_scale_ops", values.pop("linked_quantizer_scopes"))
        return values


class OverrideInitializerConfig(StrictModel):
    """Initialization of the quantizers of one override."""

    range: RangeConfig | None = None
    """Range initialization."""


class OverrideConfig(StrictModel):
    """Constraints on the quantizers of one scope."""

    mode: QuantizationMode | None = None
    """Symmetric or asymmetric ranges."""

    bits: int | None = Field(None, ge=2, le=8)
    """Bit width."""

    signed: bool | None = None
    """Force signed or unsigned levels."""

    per_channel: bool | None = None
    """One range per channel instead of one per tensor."""

    initializer: OverrideInitializerConfig | None = None
    """Initialization."""


class ScopeOverridesConfig(StrictModel):
    """Constraints by scope."""

    weights: Mapping[str, OverrideConfig] = {}
    """Scope to constraints on its weight quantizers."""

    activations: Mapping[str, OverrideConfig] = {}
    """Scope to constraints on its activation quantizers."""


class StagedConfig(StrictModel):
    """Staged training: activations and weights are quantized from different epochs on."""

    batch_multiplier: int = Field(1, ge=1)
    """Batches whose gradients are accumulated."""

    activations_quant_start_epoch: int = Field(1, ge=0)
    """First epoch with quantized activations."""

    weights_quant_start_epoch: int = Field(1, ge=0)
    """First epoch with quantized weights."""

    lr_poly_drop_start_epoch: int | None = Field(None, ge=0)
    """Epoch from which the learning rate drops."""

    lr_poly_drop_duration_epochs: int = Field(30, ge=0)
    """Epochs over which the learning rate drops."""

    disable_wd_start_epoch: int | None = Field(None, ge=0)
    """Epoch from which there is no weight decay."""

    base_lr: float = Field(1e-3, gt=0)
    """Learning rate to start from."""

    base_wd: float = Field(1e-5, ge=0)
    """Weight decay to start from."""


class QuantizationConfig(AlgorithmConfig):
    """Quantization-aware training.

    >>> config = QuantizationConfig(preset="mixed")
    >>> config.mode_of("weights"), config.mode_of("activations")
    ('symmetric', 'asymmetric')
    """

    algorithm: Literal["quantization"] = "quantization"
    """Name of the algorithm."""

    preset: Literal["performance", "mixed"] = "performance"
    """`performance` quantizes symmetrically; `mixed` quantizes activations asymmetrically."""

    initializer: QuantizationInitializerConfig = QuantizationInitializerConfig()
    """What happens before the first training step."""

    weights: GroupConfig = GroupConfig()
    """Constraints on the quantizers of weights."""

    activations: ActivationsConfig = ActivationsConfig()
    """Constraints on the quantizers of activations."""

    quantize_inputs: bool = True
    """Whether the inputs of the network are quantized."""

    quantize_outputs: bool = False
    """Whether the outputs of the network are quantized."""

    scope_overrides: ScopeOverridesConfig = ScopeOverridesConfig()
    """Constraints on the quantizers of single scopes."""

    overflow_fix: OverflowFix = "enable"
    """Half range for 8-bit weights on CPU, so that sums of two products fit 16 bits on CPUs without VNNI."""

    export_to_onnx_standard_ops: bool | None = None
    """Deprecated, without effect: the callback's export format decides."""

    params: StagedConfig | None = None
    """Staged training; absent means that everything is quantized from the start."""

    @classmethod
    def upgrade(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Read the spellings of NNCF 2.0."""
        if "disable_saturation_fix" in values:
            deprecated("disable_saturation_fix", "write `overflow_fix: disable`")
            old = values.pop("disable_saturation_fix")
            if not isinstance(old, bool):
                raise ConfigProblemsError([Problem(("disable_saturation_fix",), f"must be true or false, got {old!r}")])
            values.setdefault("overflow_fix", "disable" if old else "enable")
        if values.get("export_to_onnx_standard_ops") is not None:
            deprecated("export_to_onnx_standard_ops", "it has no effect, the callback's export format decides")
        if values.get("accuracy_aware_training") is not None:
            raise ConfigProblemsError(
                [Problem(("accuracy_aware_training",), f"is a section of NNCF 2.0 that {_LATER}")]
            )
        if values.get("params") == {}:
            values["params"] = None
        return values

    def mode_of(self, group: QuantizerGroup) -> QuantizationMode:
        """Return the mode that quantizers of a group must have: their own setting, else the preset's."""
        own = self.weights.mode if group == "weights" else self.activations.mode
        if own is not None:
            return own
        return "asymmetric" if group == "activations" and self.preset == "mixed" else "symmetric"

    def problems_in(self, root: NNCFConfig) -> Iterable[Problem]:
        """Refuse devices whose rules this version does not know."""
        if root.target_device not in AVAILABLE_DEVICES:
            devices = ", ".join(map(repr, AVAILABLE_DEVICES))
            yield Problem(
                ("target_device",), f"must be one of {devices}: quantization for {root.target_device!r} {_LATER}"
            )

    @model_validator(mode="after")
    def _check_available(self) -> Self:
        problems = list(_unavailable(self))
        if problems:
            raise ConfigProblemsError(problems)
        return self


def _unavailable(config: QuantizationConfig) -> Iterator[Problem]:
    """Yield the keys that ask for a behaviour which other versions have."""
    for index, entry in enumerate(config.initializer.range):
        if entry.type not in AVAILABLE_RANGE_TYPES:
            text = f"must be one of {', '.join(map(repr, AVAILABLE_RANGE_TYPES))}: {entry.type!r} {_LATER}"
            yield Problem(("initializer", "range", index, "type"), text)
    settings: dict[tuple[str, ...], object] = {
        ("initializer", "precision"): config.initializer.precision,
        ("params",): config.params,
        ("scope_overrides", "weights"): config.scope_overrides.weights,
        ("scope_overrides", "activations"): config.scope_overrides.activations,
        ("weights", "logarithm_scale"): config.weights.logarithm_scale,
        ("activations", "logarithm_scale"): config.activations.logarithm_scale,
        ("activations", "unified_scale_ops"): config.activations.unified_scale_ops,
    }
    yield from (Problem(path, _LATER) for path, value in settings.items() if value)


register_algorithm_config("quantization", QuantizationConfig)
