"""Which formats each target device computes in: tables as data, one row per operator.

A new device is a new entry of `HARDWARE`. The rows are NNCF's: of version 2.0 for VPU, of 2.13 for the others. On CPUs
they are less what no runtime executes in int8; the package docstring lists the differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

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
        is_unified: Whether all its inputs share one scale; formats per channel are then left out.
    """

    activations: Families = ()
    weights: Families = ()
    is_unified: bool = False


@dataclass(frozen=True, kw_only=True)
class HardwareTable:
    """Formats of all operators on one device.

    Args:
        formats: Operators that are quantized; an operator that is not listed keeps full precision.
        default: Formats of outputs of the network, and of anything quantized by demand.
        agnostic: Operators that others compute with but this device only moves values in.
        saturates: Whether products of 8-bit weights may overflow, so that `overflow_fix` applies.
        is_free: Whether constraints replace values of the formats instead of selecting among them.
        has_presets: Whether `preset` chooses modes; elsewhere the order of the formats does.
        adjusts_padding: Whether 4-bit unsigned inputs of convolutions are padded with half of their range.
    """

    formats: Mapping[str, OperatorFormats]
    default: Families = (FormatFamily(),)
    agnostic: frozenset[str] = frozenset()
    saturates: bool = False
    is_free: bool = False
    has_presets: bool = True
    adjusts_padding: bool = False

    def quantizes(self, operator: str) -> bool:
        """Whether inputs of the operator are quantized."""
        return bool(self._row(operator).activations)

    def unifies(self, operator: str) -> bool:
        """Whether the inputs of the operator share one scale."""
        return self._row(operator).is_unified

    def activations(self, operator: str, constraints: Constraints) -> Candidates:
        """Return the formats allowed for inputs of an operator, empty if the constraints leave none."""
        row = self.formats.get(operator, OperatorFormats(activations=self.default))
        found = self._select(row.activations, constraints)
        return tuple(config for config in found if not (row.is_unified and config.per_channel))

    def weights(self, operator: str, constraints: Constraints) -> Candidates:
        """Return the formats allowed for the weight of an operator, empty if there are none."""
        families = self._row(operator).weights
        return self._select(families, constraints) if families else ()

    def quantizes_weight(self, operator: str) -> bool:
        """Whether the weight of the operator is quantized."""
        return bool(self._row(operator).weights)

    def _row(self, operator: str) -> OperatorFormats:
        return self.formats.get(operator, OperatorFormats())

    def _select(self, families: Families, constraints: Constraints) -> Candidates:
        if self.is_free:
            base = expand(families)[0]
            values = {"bits": base.bits, "mode": base.mode, "per_channel": base.per_channel, "signed": base.signed}
            return (QuantizerConfig(**{**values, **constraints.given()}),)
        return constrain(expand(families), constraints)


_NORMALIZATIONS = ("MVN", "BatchNorm")
_AVERAGES = ("AvgPool", "ReduceMean")
_FOUR_BIT_ARITHMETIC = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
_OTHER_ARITHMETIC = ("Power", "FloorMod")


def _formats(
    *,
    weights: Families,
    activations: Families,
    depthwise: Families,
    others: Mapping[str, Families],
    embedding: Families = (),
    recurrent: Families = (),
    unified: Iterable[str] = (),
) -> dict[str, OperatorFormats]:
    """Write the rows of a device.

    Args:
        weights: Formats of the weights of convolutions and matrix products.
        activations: Formats of the inputs of convolutions and matrix products.
        depthwise: Formats of the inputs of depthwise convolutions.
        others: Formats of the inputs of operators without weights.
        embedding: Formats of tables that are looked up.
        recurrent: Formats of the weights of recurrent layers.
        unified: Operators without weights whose inputs share one scale.
    """
    weighted = OperatorFormats(activations=activations, weights=weights)
    rows = {
        "Convolution": weighted,
        "DepthWiseConvolution": OperatorFormats(activations=depthwise, weights=weights),
        "ConvolutionBackpropData": weighted,
        "MatMul": weighted,
        "Embedding": OperatorFormats(weights=embedding),
        "Recurrent": OperatorFormats(weights=recurrent),
    }
    together = frozenset(unified)
    for operator, families in others.items():
        rows[operator] = OperatorFormats(activations=families, is_unified=operator in together)
    return rows


def _same(families: Families, *operators: str) -> dict[str, Families]:
    return dict.fromkeys(operators, families)


_SIGNED_WEIGHT = FormatFamily(modes=("symmetric",), per_channel=(True, False), signed=True)
_ASYMMETRIC_WEIGHT = FormatFamily(modes=("asymmetric",), per_channel=(True, False))
_SYMMETRIC = FormatFamily(modes=("symmetric",))
_BOTH_MODES = (FormatFamily(),)
_PER_CHANNEL_FIRST = (FormatFamily(per_channel=(True, False)),)
_INT8_WEIGHTS = (_SIGNED_WEIGHT, _ASYMMETRIC_WEIGHT)
_FEW_BIT_WEIGHTS = (
    FormatFamily(bits=(4,), modes=("symmetric",), per_channel=(True, False)),
    FormatFamily(bits=(2,), modes=("symmetric",), per_channel=(True, False)),
)
_FOUR_BITS = FormatFamily(bits=(4,), modes=("symmetric",))

_CPU_OTHERS = (
    *_FOUR_BIT_ARITHMETIC,
    *_AVERAGES,
    *_NORMALIZATIONS,
    *("NormalizeL2", "Interpolate", "NearestInterpolate", "ScaledDotProductAttention"),
    CONVOLUTION_ACTIVATION,
)

_CPU = HardwareTable(
    formats=_formats(
        activations=_BOTH_MODES,
        weights=_INT8_WEIGHTS,
        depthwise=(FormatFamily(per_channel=(False, True)),),
        embedding=_INT8_WEIGHTS,
        recurrent=_INT8_WEIGHTS,
        others=_same(_BOTH_MODES, *_CPU_OTHERS),
    ),
    saturates=True,
)

_GPU = HardwareTable(
    formats=_formats(
        activations=_BOTH_MODES,
        weights=_INT8_WEIGHTS,
        depthwise=_PER_CHANNEL_FIRST,
        others=_same(
            _BOTH_MODES,
            *(*_FOUR_BIT_ARITHMETIC, *_OTHER_ARITHMETIC, *_AVERAGES, *_NORMALIZATIONS),
            *("Divide", "Interpolate", "ReduceSum"),
        ),
    ),
    agnostic=frozenset({"NearestInterpolate"}),
)

_VPU_BYTE = FormatFamily(modes=("asymmetric", "symmetric"))
_VPU_CHANNEL = FormatFamily(modes=("symmetric",), per_channel=(True,))
_VPU_WEIGHT = FormatFamily(modes=("symmetric",), per_channel=(True, False))

_VPU = HardwareTable(
    formats=_formats(
        activations=(_VPU_BYTE, _FOUR_BITS),
        weights=(_VPU_WEIGHT, *_FEW_BIT_WEIGHTS),
        depthwise=(_VPU_CHANNEL, _VPU_BYTE),
        embedding=(_VPU_BYTE, _VPU_WEIGHT),
        others={
            **_same((_VPU_BYTE, _FOUR_BITS), *_FOUR_BIT_ARITHMETIC),
            **_same((_VPU_BYTE,), *_OTHER_ARITHMETIC, *_NORMALIZATIONS, "Divide", "Interpolate"),
            "AvgPool": (_VPU_CHANNEL, _VPU_BYTE),
            "ReduceMean": (_VPU_CHANNEL,),
        },
        unified=(*_FOUR_BIT_ARITHMETIC, "Divide", "FloorMod"),
    ),
    default=(_VPU_BYTE,),
    agnostic=frozenset({"NearestInterpolate"}),
    has_presets=False,
    adjusts_padding=True,
)

_NPU = HardwareTable(
    formats=_formats(
        activations=(*_BOTH_MODES, _FOUR_BITS),
        weights=(*_INT8_WEIGHTS, *_FEW_BIT_WEIGHTS),
        depthwise=_PER_CHANNEL_FIRST,
        embedding=_INT8_WEIGHTS,
        recurrent=(_SIGNED_WEIGHT,),
        others={
            **_same((*_BOTH_MODES, _FOUR_BITS), *_FOUR_BIT_ARITHMETIC),
            **_same(
                _BOTH_MODES,
                *(*_OTHER_ARITHMETIC, *_AVERAGES, *_NORMALIZATIONS),
                *("Divide", "NormalizeL2", "ReduceL2", "ReduceSum", "Interpolate"),
            ),
            "ScaledDotProductAttention": (_SYMMETRIC,),
        },
        unified=(*_FOUR_BIT_ARITHMETIC, "Divide", "FloorMod"),
    ),
    agnostic=frozenset({"NearestInterpolate"}),
    has_presets=False,
    adjusts_padding=True,
)

_TRIAL = HardwareTable(
    formats=_formats(
        activations=(_SYMMETRIC,),
        weights=(_SYMMETRIC,),
        depthwise=(_SYMMETRIC,),
        embedding=(_SYMMETRIC,),
        recurrent=(_SYMMETRIC,),
        others=_same((_SYMMETRIC,), *_CPU_OTHERS),
    ),
    default=(_SYMMETRIC,),
    is_free=True,
)

HARDWARE: Mapping[str, HardwareTable] = {
    "ANY": _CPU,
    "CPU": _CPU,
    # Its matrix unit adds up products of 8-bit numbers in 32 bits.
    "CPU_SPR": replace(_CPU, saturates=False),
    "GPU": _GPU,
    "VPU": _VPU,
    "NPU": _NPU,
    "TRIAL": _TRIAL,
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
