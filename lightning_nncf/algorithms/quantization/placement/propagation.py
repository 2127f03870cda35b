"""Quantizers on their way up: from the ops that need them, against the data flow, to where the tensors are made.

Units are visited from the last to the first. When a unit is visited, all its consumers have been: what they need is
known at each edge that leaves it, so that a quantizer never has to wait.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from lightning_nncf.algorithms.quantization.placement.candidates import (
    Candidates,
    merge_into_base,
    merge_single,
)
from lightning_nncf.algorithms.quantization.placement.fusing import Unit, Units
from lightning_nncf.algorithms.quantization.placement.operators import is_replaceable, keeps_channels
from lightning_nncf.algorithms.quantization.placement.settings import PlacementSettings
from lightning_nncf.algorithms.quantization.placement.traits import Behaviour, Trait
from lightning_nncf.graph.graph import Edge, InsertionPoint

__all__ = ["Group", "Propagation", "Quantizer"]

_log = logging.getLogger(__name__)


class _Need(Enum):
    """What an edge without a quantizer needs."""

    NOTHING = "any precision will do, or the consumer quantizes further down"
    PRECISION = "the tensor must not be quantized"


class Group:
    """Quantizers that get the same format, and one scale if it is per tensor."""

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.members: list[Quantizer] = []


@dataclass(eq=False)
class Quantizer:
    """A quantizer that looks for its place.

    Args:
        ops: Addresses of the ops whose inputs it quantizes.
        group: Its group; a quantizer that shares with nobody is alone in one.
        homes: Where it stands: the last points on its way where modules can be inserted.
        base: The quantizer upstream whose result this one quantizes again.
    """

    ops: tuple[str, ...]
    group: Group
    homes: tuple[InsertionPoint, ...] = ()
    base: Quantizer | None = None
    place_in: Quantizer | None = field(default=None, repr=False)

    @property
    def candidates(self) -> Candidates:
        """Formats it may take."""
        return self.group.candidates

    def current(self) -> Quantizer:
        """Return the quantizer this one was merged into."""
        return self if self.place_in is None else self.place_in.current()


Arrival = Quantizer | _Need
_NOTHING: Final = _Need.NOTHING
_PRECISION: Final = _Need.PRECISION


class Propagation:
    """Moves the quantizers of all units; afterwards `quantizers` and `absorbed` hold the outcome.

    Args:
        units: The units of the graph.
        behaviours: Their traits.
        settings: The user's settings.
        weight_formats: Formats of the weights whose quantization can stand for the quantization of what is looked
            up in them, by address of the op.
        quantized: Names of the parameters that have a quantizer.
    """

    def __init__(
        self,
        units: Units,
        behaviours: Mapping[Unit, Behaviour],
        settings: PlacementSettings,
        weight_formats: Mapping[str, Candidates],
        quantized: Collection[str] = (),
    ) -> None:
        self.units = units
        self.behaviours = behaviours
        self.settings = settings
        self.weight_formats = weight_formats
        self.quantized = quantized
        self.arrivals: dict[Edge, Arrival] = {}
        self.groups: list[Group] = []
        self.absorbed: dict[str, tuple[Candidates, tuple[str, ...]]] = {}

    def run(self) -> Propagation:
        """Visit all units."""
        for unit in reversed(self.units.ordered):
            need = self._need_of_result(unit)
            if self.behaviours[unit].result_candidates and not isinstance(need, Quantizer):
                self._quantize_result(unit, self.behaviours[unit].result_candidates)
            self._visit(unit, need)
        return self

    @property
    def quantizers(self) -> list[Quantizer]:
        """All quantizers where they stopped."""
        return [quantizer for group in self.groups for quantizer in group.members]

    # -- one unit --------------------------------------------------------------------------------------------------

    def _visit(self, unit: Unit, need: Arrival) -> None:
        behaviour = self.behaviours[unit]
        trait = behaviour.trait
        edges = self.units.inputs(unit)
        if trait is Trait.QUANTIZABLE_IF_RESULT:
            trait = Trait.QUANTIZABLE if self._is_consumed_quantized(unit) else Trait.NON_QUANTIZABLE
        if trait is Trait.QUANTIZABLE:
            self._demand(unit, edges, behaviour)
        elif trait in (Trait.AGNOSTIC, Trait.CONCAT):
            self._pass(unit, edges, need)
        elif trait is Trait.WEIGHT_AS_OUTPUT:
            if isinstance(need, Quantizer):
                self._absorb(unit, need)
        elif trait is Trait.NON_QUANTIZABLE:
            self.arrivals.update(dict.fromkeys(edges, _PRECISION))

    def _is_consumed_quantized(self, unit: Unit) -> bool:
        edges = self.units.flow.outputs[unit.last.address]
        return any(isinstance(self.arrivals.get(edge), Quantizer) for edge in edges)

    def _demand(self, unit: Unit, edges: Sequence[Edge], behaviour: Behaviour) -> None:
        shared: Group | None = None
        for edge in edges:
            if self.units.flow.carries(edge) or self.units.flow.computes_weight(edge, self.quantized):
                group = shared or self._new_group(behaviour.candidates)
                shared = group if behaviour.is_unified else None
                quantizer = self._new_quantizer((unit.first.address,), group)
                self._stand(quantizer, _before(edge))
                self.arrivals[edge] = quantizer
            else:
                self.arrivals[edge] = _PRECISION

    def _pass(self, unit: Unit, edges: Sequence[Edge], need: Arrival) -> None:
        """Hand what the result needs to the inputs of an op that only moves values."""
        flow = self.units.flow
        if not isinstance(need, Quantizer):
            self.arrivals.update(dict.fromkeys(edges, need))
            return
        carrying = [edge for edge in edges if flow.carries(edge) and 0 not in edge.tensor.shape]
        ports = {edge.port for edge in carrying}
        others = [info for port, info in enumerate(unit.first.inputs) if port not in ports and 0 not in info.shape]
        mixes = any(info.is_floating_point and info.shape for info in others)
        is_concat = self.behaviours[unit].trait is Trait.CONCAT
        if not carrying or (is_concat and others) or (not is_concat and (len(carrying) > 1 or mixes)):
            return
        if not keeps_channels(unit.first) and not self._drop_per_channel(need):
            return
        clones = [need]
        for _ in carrying[1:]:
            clones.append(self._new_quantizer(need.ops, need.group))
            clones[-1].homes = need.homes
        for edge, clone in zip(carrying, clones, strict=True):
            self._stand(clone, _before(edge))
            self.arrivals[edge] = clone

    def _drop_per_channel(self, quantizer: Quantizer) -> bool:
        """Keep per-tensor formats only, as channels do not keep their axis from here on; false if there are none."""
        kept = tuple(config for config in quantizer.candidates if not config.per_channel)
        if kept:
            quantizer.group.candidates = kept
        return bool(kept)

    def _absorb(self, unit: Unit, quantizer: Quantizer) -> None:
        """Let the quantized weight of an embedding stand for the quantizer of its output.

        What a bag of embeddings adds up is no longer on the grid of the weight.
        """
        if unit.first.function == "embedding_bag":
            return
        offered = self.weight_formats.get(unit.first.address, ())
        shared = tuple(
            weight
            for weight in offered
            if not weight.per_channel
            and any((weight.bits, weight.mode) == (config.bits, config.mode) for config in quantizer.candidates)
        )
        if shared and len(quantizer.group.members) == 1:
            self.absorbed[unit.first.address] = (shared, quantizer.ops)
            quantizer.group.members.remove(quantizer)

    # -- the result of a unit --------------------------------------------------------------------------------------

    def _need_of_result(self, unit: Unit) -> Arrival:
        """Lift the quantizers of all consumers to the outputs of a unit and merge them there."""
        by_output: dict[int, list[Edge]] = {}
        for edge in self.units.flow.outputs[unit.last.address]:
            by_output.setdefault(edge.output, []).append(edge)
        needs = [self._lift(unit, output, by_output[output]) for output in sorted(by_output)]
        lifted = list(dict.fromkeys(need for need in needs if isinstance(need, Quantizer)))
        if _PRECISION in needs:
            return _PRECISION
        if not lifted:
            return _NOTHING
        if self.behaviours[unit].trait not in (Trait.AGNOSTIC, Trait.CONCAT):
            return lifted[0]
        return self._merge(lifted) or _PRECISION

    def _lift(self, unit: Unit, output: int, edges: Sequence[Edge]) -> Arrival:
        needs = [self.arrivals.get(edge, _NOTHING) for edge in edges]
        standing = list(dict.fromkeys(need for need in needs if isinstance(need, Quantizer)))
        if not standing:
            return _PRECISION if _PRECISION in needs else _NOTHING
        merged = self._merge(standing)
        if merged is None:
            _log.warning(
                "the consumers of %s share no quantizer format; each keeps a quantizer of its own", unit.last.address
            )
        if merged is None or _PRECISION in needs:
            return _PRECISION
        if is_replaceable(unit.last):
            self._stand(merged, InsertionPoint(kind="output", address=unit.last.address, port=output))
        return merged

    def _quantize_result(self, unit: Unit, candidates: Candidates) -> None:
        """Quantize what a unit gives although somebody needs it in full precision, or nobody quantized."""
        edges = self.units.flow.outputs[unit.last.address]
        arrived = (self.arrivals.get(edge) for edge in edges)
        standing = dict.fromkeys(need.current() for need in arrived if isinstance(need, Quantizer))
        quantizer = self._merge(list(standing)) if standing else None
        if quantizer is None:
            ops = tuple(dict.fromkeys(self.units.of[edge.target].first.address for edge in edges))
            quantizer = self._new_quantizer(ops, self._new_group(candidates))
        self._stand(quantizer, InsertionPoint(kind="output", address=unit.last.address))

    def _stand(self, quantizer: Quantizer, point: InsertionPoint) -> None:
        if self.settings.accepts(point):
            quantizer.homes = (point,)

    # -- merging ---------------------------------------------------------------------------------------------------

    def _new_group(self, candidates: Candidates) -> Group:
        group = Group(candidates)
        self.groups.append(group)
        return group

    def _new_quantizer(self, ops: tuple[str, ...], group: Group) -> Quantizer:
        group.members.append(Quantizer(ops=ops, group=group))
        return group.members[-1]

    def _merge(self, quantizers: Sequence[Quantizer]) -> Quantizer | None:
        """Replace quantizers of one tensor by one that suits all; ``None`` if no format does."""
        if len(quantizers) == 1:
            return quantizers[0]
        lists = [quantizer.candidates for quantizer in quantizers]
        shared = merge_single(lists)
        staying: list[Quantizer] = []
        if self.settings.merge == "requantize" and any(set(found) != set(shared) for found in lists):
            shared = merge_into_base(lists)
            staying = [quantizer for quantizer in quantizers if set(quantizer.candidates) != set(shared)]
        if not shared:
            return None
        leaving = [quantizer for quantizer in quantizers if quantizer not in staying]
        group = self.join([quantizer.group for quantizer in leaving], shared)
        merged = Quantizer(
            ops=tuple(dict.fromkeys(op for quantizer in (leaving or quantizers) for op in quantizer.ops)),
            group=group,
            homes=tuple(dict.fromkeys(home for quantizer in leaving for home in quantizer.homes)),
        )
        group.members = [*(member for member in group.members if member not in leaving), merged]
        for quantizer in leaving:
            quantizer.place_in = merged
        for quantizer in staying:
            quantizer.base = merged
        return merged

    def join(self, groups: Sequence[Group], candidates: Candidates) -> Group:
        """Put the quantizers of several groups into one new group with the given formats."""
        joined = self._new_group(candidates)
        for group in dict.fromkeys(groups):
            for member in group.members:
                member.group = joined
                joined.members.append(member)
            self.groups.remove(group)
        return joined


def _before(edge: Edge) -> InsertionPoint:
    return InsertionPoint(kind="input", address=edge.target, port=edge.port)
