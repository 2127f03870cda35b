"""Configuration of quantization: every key of NNCF's section, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from lightning_nncf.algorithms.quantization.constraint_config import (
    ActivationsConfig,
    GroupConfig,
    ScopeOverridesConfig,
)
from lightning_nncf.algorithms.quantization.initialization.initializer_config import (
    PrecisionConfig,
    QuantizationInitializerConfig,
    QuantizerGroup,
    RangeConfig,
    RangeType,
)
from lightning_nncf.algorithms.quantization.placement.hardware import HARDWARE, hardware_table
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizationMode
from lightning_nncf.config.algorithm import AlgorithmConfig, RootSettings
from lightning_nncf.config.problems import ConfigProblemsError, Problem
from lightning_nncf.config.registry import register_algorithm_config
from lightning_nncf.config.staged import StagedConfig

__all__ = [
    "GroupConfig",
    "OverflowFix",
    "PrecisionConfig",
    "QuantizationConfig",
    "QuantizationInitializerConfig",
    "QuantizerGroup",
    "RangeConfig",
    "RangeType",
]

OverflowFix = Literal["enable", "disable", "first_layer_only"]

_LATER = "is not available in this version"


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

    quantize_after_convolutions: bool = True
    """Whether every convolution but the last has a quantizer behind it on CPUs, also where its result is used in
    floating point: ONNX Runtime computes it in floating point otherwise. OpenVINO does not need it."""

    scope_overrides: ScopeOverridesConfig = ScopeOverridesConfig()
    """Constraints on the quantizers of single scopes."""

    overflow_fix: OverflowFix = "enable"
    """Half range for 8-bit weights on CPU, so that sums of two products fit 16 bits on CPUs without VNNI."""

    gradient: Literal["nncf", "lsq"] = "nncf"
    """`nncf` trains ranges by their plain gradients; `lsq` divides them by the root of the number of values that share
    the range times the largest integer, as Learned Step Size Quantization does."""

    params: StagedConfig | None = None
    """Staged training; absent means that everything is quantized from the start."""

    deprecated_keys: ClassVar[Mapping[str, str]] = {
        "disable_saturation_fix": "write `overflow_fix: disable`",
        "export_to_onnx_standard_ops": "it has no effect, the callback's `export_format` decides",
    }

    @classmethod
    def upgrade(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Read the spellings of NNCF 2.0."""
        if "disable_saturation_fix" in values:
            old = values.pop("disable_saturation_fix")
            if not isinstance(old, bool):
                raise ConfigProblemsError([Problem(("disable_saturation_fix",), f"must be true or false, got {old!r}")])
            values.setdefault("overflow_fix", "disable" if old else "enable")
        values.pop("export_to_onnx_standard_ops", None)
        if values.get("accuracy_aware_training") is not None:
            raise ConfigProblemsError(
                [Problem(("accuracy_aware_training",), f"is a section of NNCF 2.0 that {_LATER}")]
            )
        if values.get("params") == {}:
            values["params"] = None
        return values

    def mode_of(self, group: QuantizerGroup, target_device: str = "ANY") -> QuantizationMode | None:
        """Return the mode that quantizers of a group must have: their own setting, else the preset's.

        ``None`` leaves the choice to a device that has no presets.
        """
        own = self.weights.mode if group == "weights" else self.activations.mode
        if own is not None or not hardware_table(target_device).has_presets:
            return own
        return "asymmetric" if group == "activations" and self.preset == "mixed" else "symmetric"

    def problems_in(self, root: RootSettings) -> Iterable[Problem]:
        """Refuse a preset for a device that has none."""
        if "preset" in self.model_fields_set and not hardware_table(root.target_device).has_presets:
            known = ", ".join(repr(device) for device, table in HARDWARE.items() if table.has_presets)
            yield Problem(
                ("compression", root.compression.index(self), "preset"),
                f"is not available for target device {root.target_device!r}, only for {known}; write `mode` in "
                "`weights` and `activations` instead",
            )


register_algorithm_config("quantization", QuantizationConfig)
