"""What a user may ask of the placement of quantizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lightning_nncf.algorithms.quantization.quantizer_config import QuantizationMode
from lightning_nncf.graph.graph import InsertionPoint

__all__ = ["Constraints", "GroupSettings", "Kind", "PlacementSettings"]

Kind = Literal["weight", "activation"]
"""Which of the two groups of quantizers is meant."""


def _nowhere(address: str) -> bool:
    return False


def _everywhere(address: str) -> bool:
    return True


def _any_point(point: InsertionPoint) -> bool:
    return True


def _no_override(address: str, kind: Kind) -> Constraints | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Number formats a user allows; ``None`` leaves the choice to the hardware table.

    Args:
        mode: ``symmetric`` or ``asymmetric``.
        bits: Bit width.
        signed: Whether symmetric quantizers keep values below zero.
        per_channel: One range per channel (``True``) or per tensor (``False``).

    >>> Constraints(bits=8, mode="symmetric").given()
    {'mode': 'symmetric', 'bits': 8}
    """

    mode: QuantizationMode | None = None
    bits: int | None = None
    signed: bool | None = None
    per_channel: bool | None = None

    def given(self) -> dict[str, Any]:
        """Return the constraints that were given, by name."""
        values = {"mode": self.mode, "bits": self.bits, "signed": self.signed, "per_channel": self.per_channel}
        return {name: value for name, value in values.items() if value is not None}

    def updated(self, other: Constraints | None) -> Constraints:
        """Return these constraints with the given ones of another put over them."""
        return Constraints(**{**self.given(), **(other.given() if other is not None else {})})


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """Settings of all weight or of all activation quantizers.

    Args:
        constraints: Number formats allowed in the group.
        ignored: Whether the op at an address gets no quantizer of this group.
        target: Whether the op at an address may get one.
    """

    constraints: Constraints = field(default_factory=Constraints)
    ignored: Callable[[str], bool] = _nowhere
    target: Callable[[str], bool] = _everywhere

    def covers(self, address: str) -> bool:
        """Whether the op at an address takes part in the group."""
        return self.target(address) and not self.ignored(address)


@dataclass(frozen=True, kw_only=True)
class PlacementSettings:
    """Settings of `place_quantizers`.

    Args:
        target_device: Name of a hardware table, as ``ANY`` or ``CPU``.
        weights: Settings of weight quantizers.
        activations: Settings of activation quantizers.
        ignored: Whether the op at an address keeps full precision; no activation quantizer moves through it.
        target: Whether the op at an address may be quantized at all.
        override: Constraints for the op at an address, put over those of its group; ``None`` where there are none.
        accepts: Whether a module can be inserted at a point; a quantizer steps back to the last point that can.
        quantize_inputs: Whether the inputs of the network are quantized.
        quantize_outputs: Whether the outputs of the network are quantized.
        quantize_after_convolutions: Whether a convolution has a quantizer behind it even if its result is used in full
            precision, on devices that compute it in integers only then.
        unified: Groups of ops whose activation quantizers share one scale, each as what the user wrote to the
            addresses it selects.
        validate: Whether an entry of `unified` without quantizers is an error.
        overflow_fix: Which 8-bit weights use half of their range on devices whose 8-bit products may saturate.
        merge: What happens to quantizers meeting at a branch: ``single`` merges them when one format suits all;
            ``requantize`` also merges them into a finer format that each branch may quantize again.
    """

    target_device: str = "ANY"
    weights: GroupSettings = field(default_factory=GroupSettings)
    activations: GroupSettings = field(default_factory=GroupSettings)
    ignored: Callable[[str], bool] = _nowhere
    target: Callable[[str], bool] = _everywhere
    override: Callable[[str, Kind], Constraints | None] = _no_override
    accepts: Callable[[InsertionPoint], bool] = _any_point
    quantize_inputs: bool = True
    quantize_outputs: bool = False
    quantize_after_convolutions: bool = True
    unified: Sequence[Mapping[str, Sequence[str]]] = ()
    validate: bool = True
    overflow_fix: Literal["enable", "disable", "first_layer_only"] = "enable"
    merge: Literal["single", "requantize"] = "single"

    def group(self, kind: Kind) -> GroupSettings:
        """Return the settings of one group."""
        return self.weights if kind == "weight" else self.activations

    def covers(self, address: str, kind: Kind) -> bool:
        """Whether the op at an address may get quantizers of a group."""
        return self.target(address) and not self.ignored(address) and self.group(kind).covers(address)

    def constraints(self, address: str, kind: Kind) -> Constraints:
        """Return the constraints that hold for one group at one op."""
        return self.group(kind).constraints.updated(self.override(address, kind))
