"""Which formats each target device computes in: tables as data, one row per operator.

A new device is a new entry of `HARDWARE`. The rows are NNCF's, less what no runtime executes in int8; the package
docstring lists the differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_nncf.algorithms.quantization.placement.candidates import Candidates, FormatFamily, constrain, expand
from lightning_nncf.algorithms.quantization.placement.operators import CONVOLUTION_ACTIVATION
from lightning_nncf.algorithms.quantization.placement.settings import Constraints
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.errors import ConfigError, near

__all__ = ["HARDWARE", "HardwareTable", "OperatorFormats", "hardware_table"]

Families = tuple[FormatFamily, ...]


@dataclass(frozen=True, kw_only=True)
class OperatorFormats:
    """What a device allows for one operator.

    Args:
        activations: Formats of its inputs, best first.
        weights: Formats of its weight, best first; empty for operators without one.
    """

    activations: Families = ()
    weights: Families = ()


@dataclass(frozen=True, kw_only=True)
class HardwareTable:
    """Formats of all operators on one device.

    Args:
        formats: Operators that are quantized; an operator that is not listed keeps full precision.
        default: Formats of outputs of the network, and of anything quantized by demand.
        saturates: Whether products of 8-bit weights may overflow, so that `overflow_fix` applies.
        is_free: Whether constraints replace values of the formats instead of selecting among them.
    """

    formats: Mapping[str, OperatorFormats]
    default: Families = (FormatFamily(),)
    saturates: bool = False
    is_free: bool = False

    def quantizes(self, operator: str) -> bool:
        """Whether inputs of the operator are quantized."""
        return bool(self.formats.get(operator, OperatorFormats()).activations)

    def activations(self, operator: str, constraints: Constraints) -> Candidates:
        """Return the formats allowed for inputs of an operator, empty if the constraints leave none."""
        return self._select(
            self.formats.get(operator, OperatorFormats(activations=self.default)).activations, constraints
        )

    def weights(self, operator: str, constraints: Constraints) -> Candidates:
        """Return the formats allowed for the weight of an operator, empty if the constraints leave none."""
        return self._select(self.formats[operator].weights, constraints)

    def _select(self, families: Families, constraints: Constraints) -> Candidates:
        if self.is_free:
            base = expand(families)[0]
            values = {"bits": base.bits, "mode": base.mode, "per_channel": base.per_channel, "signed": base.signed}
            return (QuantizerConfig(**{**values, **constraints.given()}),)
        return constrain(expand(families), constraints)


def _formats(*, activations: Families, weights: Families, depthwise: Families) -> dict[str, OperatorFormats]:
    weighted = OperatorFormats(activations=activations, weights=weights)
    unweighted = OperatorFormats(activations=activations)
    formats = {
        "Convolution": weighted,
        "DepthWiseConvolution": OperatorFormats(activations=depthwise, weights=weights),
        "ConvolutionBackpropData": weighted,
        "MatMul": weighted,
        "Embedding": OperatorFormats(weights=weights),
    }
    for operator in (
        *("Add", "Subtract", "Multiply", "Maximum", "Minimum", "AvgPool", "ReduceMean", "NormalizeL2"),
        *("Interpolate", "MVN", "BatchNorm", "ScaledDotProductAttention", CONVOLUTION_ACTIVATION),
    ):
        formats[operator] = unweighted
    return formats


_SYMMETRIC_WEIGHT = FormatFamily(modes=("symmetric",), per_channel=(True, False), signed=True)
_ASYMMETRIC_WEIGHT = FormatFamily(modes=("asymmetric",), per_channel=(True, False))
_TRIAL = (FormatFamily(modes=("symmetric",)),)

_CPU = HardwareTable(
    formats=_formats(
        activations=(FormatFamily(),),
        weights=(_SYMMETRIC_WEIGHT, _ASYMMETRIC_WEIGHT),
        depthwise=(FormatFamily(per_channel=(False, True)),),
    ),
    saturates=True,
)

HARDWARE: Mapping[str, HardwareTable] = {
    "ANY": _CPU,
    "CPU": _CPU,
    "TRIAL": HardwareTable(
        formats=_formats(activations=_TRIAL, weights=_TRIAL, depthwise=_TRIAL),
        default=_TRIAL,
        is_free=True,
    ),
}
"""Tables by the name of the target device."""


def hardware_table(device: str) -> HardwareTable:
    """Return the table of a target device.

    Raises:
        ConfigError: No table has that name.

    >>> hardware_table("CPU").quantizes("Convolution"), hardware_table("CPU").quantizes("Activation")
    (True, False)
    """
    if device not in HARDWARE:
        raise ConfigError(f"`target_device` has no hardware table {device!r}; {near(device, HARDWARE)}")
    return HARDWARE[device]
