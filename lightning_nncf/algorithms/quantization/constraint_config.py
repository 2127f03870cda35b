"""Configuration of constraints on quantizers, and of when they start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from lightning_nncf.algorithms.quantization.initialization.initializer_config import RangeConfig
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizationMode
from lightning_nncf.config.base import Scopes, StrictModel

__all__ = ["ActivationsConfig", "GroupConfig", "OverrideConfig", "ScopeOverridesConfig"]


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

    deprecated_keys: ClassVar[Mapping[str, str]] = {"linked_quantizer_scopes": "write `unified_scale_ops`"}

    @classmethod
    def upgrade(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Read the older name of ``unified_scale_ops``."""
        if "linked_quantizer_scopes" in values:
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
