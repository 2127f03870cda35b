"""How each unit behaves towards quantizers, decided before any of them moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from lightning_nncf.algorithms.quantization.placement.candidates import Candidates, expand
from lightning_nncf.algorithms.quantization.placement.composites import ACTIVATION, NORMALIZATION
from lightning_nncf.algorithms.quantization.placement.flow import Flow
from lightning_nncf.algorithms.quantization.placement.fusing import Unit, Units
from lightning_nncf.algorithms.quantization.placement.hardware import HardwareTable
from lightning_nncf.algorithms.quantization.placement.operators import (
    ARITHMETIC,
    CONVOLUTION_ACTIVATION,
    CONVOLUTIONS,
    ELEMENTWISE,
    LINEAR,
    NEITHER,
    TRANSPOSED,
    is_replaceable,
)
from lightning_nncf.algorithms.quantization.placement.settings import Constraints, Kind, PlacementSettings
from lightning_nncf.errors import PlacementError
from lightning_nncf.graph.graph import INPUT, OUTPUT

__all__ = ["Behaviour", "Trait", "activation_candidates", "assign_traits", "conflict"]


class Trait(Enum):
    """Behaviour of a unit towards quantizers."""

    QUANTIZABLE = "its inputs are quantized"
    QUANTIZABLE_IF_RESULT = "its inputs are quantized if its result is"
    NON_QUANTIZABLE = "it keeps full precision, and no quantizer moves through it"
    AGNOSTIC = "quantizers move through it"
    CONCAT = "quantizers move through it to all inputs, where they share one scale"
    WEIGHT_AS_OUTPUT = "its quantized weight makes its output quantized"
    SOURCE = "an input of the network, where quantizers stop"
    UNUSED = "nothing depends on its result"


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """Trait of a unit and the formats of the quantizers around it.

    Args:
        trait: What happens to quantizers that come to it, and whether it asks for some.
        candidates: Where its inputs are quantized, the formats allowed for them.
        is_unified: Whether its inputs share one format.
        result_candidates: Where its result is quantized whoever takes it, the formats allowed for that.
    """

    trait: Trait
    candidates: Candidates = ()
    is_unified: bool = False
    result_candidates: Candidates = ()


def conflict(address: str, kind: Kind, device: str, allowed: Candidates, constraints: Constraints) -> PlacementError:
    """Return the error for a place where the constraints leave no format."""
    formats = ", ".join(
        f"{config.bits}-bit {config.mode} per {'channel' if config.per_channel else 'tensor'}" for config in allowed
    )
    given = ", ".join(f"{name}={value!r}" for name, value in constraints.given().items())
    return PlacementError(
        f"no {kind} quantizer fits at {address!r}: target device {device!r} allows {formats or 'no format'}, "
        f"the configuration asks for {given}. Relax these settings, or add the op to `ignored_scopes`"
    )


def activation_candidates(table: HardwareTable, operator: str, address: str, settings: PlacementSettings) -> Candidates:
    """Return the formats for the inputs of a unit.

    Raises:
        PlacementError: The constraints leave none.
    """
    constraints = settings.constraints(address, "activation")
    found = table.activations(operator, constraints)
    if not found:
        allowed = table.activations(operator, Constraints())
        raise conflict(address, "activation", settings.target_device, allowed, constraints)
    return found


_UNSTEADY = ARITHMETIC | {NEITHER, ACTIVATION, NORMALIZATION}


def _steady(units: Units) -> set[str]:
    """Return addresses of the units that follow weighted ops without any unquantizable arithmetic in between.

    A global pooling after the last convolution does; the mean of a loss, or the arithmetic that turns the output of
    a detection head into boxes, does not.
    """
    steady: set[str] = set()
    for unit in units.ordered:
        arriving = units.activations_into(unit)
        fed = bool(arriving) and all(units.of[edge.source].last.address in steady for edge in arriving)
        if unit.operator in LINEAR or unit.operator == "Embedding":
            keeps = True
        elif unit.operator in ELEMENTWISE:
            floats = [edge for edge in units.inputs(unit) if edge.tensor.is_floating_point]
            keeps = fed and len(floats) == len(arriving) and len(arriving) > 1
        else:
            keeps = fed and unit.operator not in _UNSTEADY
        if keeps:
            steady.add(unit.last.address)
    return steady


def _computes_in_integers(unit: Unit, units: Units) -> bool:
    """Whether an elementwise op is worth quantizing: both operands are activations, or it follows a convolution.

    No runtime adds or multiplies a quantized tensor and a constant in integers; but a convolution computes in integers
    only if a quantizer follows it.
    """
    arriving = units.activations_into(unit)
    return len(arriving) > 1 or any(units.of[edge.source].operator in CONVOLUTIONS for edge in arriving)


def _is_covered(unit: Unit, settings: PlacementSettings) -> bool:
    return settings.covers(unit.first.address, "activation")


def assign_traits(units: Units, table: HardwareTable, settings: PlacementSettings) -> Mapping[Unit, Behaviour]:
    """Decide the trait of every unit.

    Raises:
        PlacementError: The constraints leave no format for some unit; the first along the data flow is named.
    """
    steady = _steady(units)

    def allowed(unit: Unit) -> Candidates:
        return activation_candidates(table, unit.operator, unit.first.address, settings)

    def decide(unit: Unit) -> Behaviour:
        trait = _trait(unit, units, table, steady)
        if trait in (Trait.SOURCE, Trait.UNUSED):
            return Behaviour(trait=trait)
        if unit.first.function == OUTPUT:
            if not settings.quantize_outputs:
                return Behaviour(trait=Trait.NON_QUANTIZABLE)
            constraints = settings.constraints(unit.first.address, "activation")
            found = table.activations(OUTPUT, constraints)
            if not found:
                raise conflict(
                    unit.first.address, "activation", settings.target_device, expand(table.default), constraints
                )
            return Behaviour(trait=Trait.QUANTIZABLE, candidates=found)
        if not _is_covered(unit, settings):
            return Behaviour(trait=Trait.NON_QUANTIZABLE)
        if trait in (Trait.QUANTIZABLE, Trait.QUANTIZABLE_IF_RESULT):
            return Behaviour(
                trait=trait,
                candidates=allowed(unit),
                is_unified=table.unifies(unit.operator),
                result_candidates=_result_candidates(unit, units, table, settings)
                if unit.operator in CONVOLUTIONS
                else (),
            )
        return Behaviour(trait=trait)

    return {unit: decide(unit) for unit in units.ordered}


def _result_candidates(unit: Unit, units: Units, table: HardwareTable, settings: PlacementSettings) -> Candidates:
    """Return the formats for the result of a convolution that computes in integers only if that is quantized.

    Those are all on CPUs but transposed ones, which ONNX Runtime never computes in integers. What the network returns
    stays exact, and so do the inputs of ops that are to keep full precision and what follows the last weight.
    """
    flow = units.flow
    edges = flow.outputs[unit.last.address]
    slides = unit.operator in CONVOLUTIONS - {TRANSPOSED} and table.quantizes(CONVOLUTION_ACTIVATION)
    if not (slides and settings.quantize_after_convolutions and edges and is_replaceable(unit.last)):
        return ()
    takers = [units.of[edge.target] for edge in edges]
    if any(_is_returned(taker, units, table) or not _is_covered(taker, settings) for taker in takers):
        return ()
    is_last = not any(taker.last.address in flow.before for taker in takers)
    if is_last or not settings.covers(unit.first.address, "weight"):
        return ()
    found = activation_candidates(table, CONVOLUTION_ACTIVATION, takers[0].first.address, settings)
    return tuple(config for config in found if not config.per_channel)


def _is_returned(unit: Unit, units: Units, table: HardwareTable) -> bool:
    """Whether a unit is an output of the network, or only moves values to one."""
    if unit.first.function == OUTPUT:
        return True
    moves = unit.operator == "Agnostic" or unit.operator in table.agnostic
    takers = dict.fromkeys(units.of[edge.target] for edge in units.flow.outputs[unit.last.address])
    return moves and any(_is_returned(taker, units, table) for taker in takers)


def _trait(unit: Unit, units: Units, table: HardwareTable, steady: set[str]) -> Trait:
    flow: Flow = units.flow
    address, operator = unit.first.address, unit.operator
    follows_weight = any(edge.source in flow.behind for edge in units.activations_into(unit))
    if unit.first.function == INPUT:
        trait = Trait.SOURCE
    elif unit.last.address not in flow.useful:
        trait = Trait.UNUSED
    elif operator == "Agnostic" or operator in table.agnostic:
        trait = Trait.AGNOSTIC
    elif operator == "Embedding":
        trait = Trait.WEIGHT_AS_OUTPUT if address in flow.weights else Trait.NON_QUANTIZABLE
    elif operator in LINEAR:
        trait = Trait.QUANTIZABLE if follows_weight or address in flow.weighted else Trait.NON_QUANTIZABLE
    elif not follows_weight:
        trait = Trait.NON_QUANTIZABLE
    elif operator == "Concat":
        trait = Trait.CONCAT
    elif not table.quantizes(operator):
        trait = Trait.NON_QUANTIZABLE
    elif operator in ELEMENTWISE:
        trait = Trait.QUANTIZABLE_IF_RESULT if _computes_in_integers(unit, units) else Trait.NON_QUANTIZABLE
    elif operator == CONVOLUTION_ACTIVATION:
        # Behind the last weight, as before a sigmoid that gives probabilities, full precision is worth more.
        trait = Trait.QUANTIZABLE if address in flow.before else Trait.NON_QUANTIZABLE
    else:
        ends_quantized = address in flow.before or unit.last.address in steady
        trait = Trait.QUANTIZABLE if ends_quantized else Trait.NON_QUANTIZABLE
    return trait
