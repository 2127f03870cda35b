"""Ops that runtimes compute as one: no quantizer may come between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_nncf.algorithms.quantization.placement.composites import ACTIVATION, BATCH_NORM, composites
from lightning_nncf.algorithms.quantization.placement.flow import Flow
from lightning_nncf.algorithms.quantization.placement.operators import (
    ACTIVATIONS,
    CLIPPING,
    CONVOLUTION_ACTIVATION,
    CONVOLUTIONS,
    ELEMENTWISE,
    LINEAR,
    canonical,
    operator_of,
)
from lightning_nncf.graph.graph import Edge, OpNode

__all__ = ["Unit", "Units", "fuse"]

_CONTINUATIONS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "LINEAR": ((BATCH_NORM, ACTIVATION), (ACTIVATION, BATCH_NORM), (BATCH_NORM,), (ACTIVATION,)),
    "ARITHMETIC": ((BATCH_NORM, ACTIVATION), (ACTIVATION, BATCH_NORM), (BATCH_NORM,), (ACTIVATION,)),
    BATCH_NORM: ((ACTIVATION,),),
    ACTIVATION: ((BATCH_NORM,),),
}
"""What may follow a first op in a fused pattern, longest first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit:
    """Ops computed as one, from the first to the last; most units are a single op.

    Args:
        ops: The ops in data-flow order.
        operator: Operator whose row of the hardware table holds for the inputs of the unit.
    """

    ops: tuple[OpNode, ...]
    operator: str

    @property
    def first(self) -> OpNode:
        """The op that is addressed when the unit is quantized or ignored."""
        return self.ops[0]

    @property
    def last(self) -> OpNode:
        """The op whose outputs leave the unit."""
        return self.ops[-1]


@dataclass(frozen=True, kw_only=True)
class Units:
    """The units of a flow.

    Args:
        flow: The flow.
        ordered: Units, producers before consumers.
        of: The unit of each op by address.
    """

    flow: Flow
    ordered: tuple[Unit, ...]
    of: Mapping[str, Unit]

    def inputs(self, unit: Unit) -> list[Edge]:
        """Return the edges that enter a unit."""
        members = {op.address for op in unit.ops}
        return [edge for op in unit.ops for edge in self.flow.inputs[op.address] if edge.source not in members]

    def activations_into(self, unit: Unit) -> list[Edge]:
        """Return the edges that bring activations to a unit."""
        return [edge for edge in self.inputs(unit) if self.flow.carries(edge)]


def _role(op: OpNode) -> str:
    operator = operator_of(op)
    if operator in LINEAR:
        return "LINEAR"
    if operator in ELEMENTWISE:
        return "ARITHMETIC"
    if canonical(op.function) in ACTIVATIONS:
        return ACTIVATION
    return operator


class _Fuser:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.pieces: dict[str, tuple[str, ...]] = {address: (address,) for address in flow.ops}
        self.roles = {address: _role(op) for address, op in flow.ops.items()}
        for operator, region in composites(flow):
            for address in region:
                self.pieces[address] = region
                self.roles[address] = operator

    def following(self, piece: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the piece that alone consumes the result of another, and nothing else."""
        edges = self.flow.outputs[piece[-1]]
        if not edges or len({edge.output for edge in edges}) > 1:
            return None
        pieces = {self.pieces[edge.target] for edge in edges}
        if len(pieces) > 1:
            return None
        found = pieces.pop()
        arriving = {edge.source for address in found for edge in self.flow.activations_into(address)} - set(found)
        return found if arriving == {piece[-1]} else None

    def separate(self, chain: list[tuple[str, ...]], later: tuple[str, ...]) -> bool:
        """Whether a function needs a quantizer before it for the convolution to run in integers.

        An activation function does that more than clips, and a batch norm behind an activation function.
        """
        convolution = operator_of(self.flow.ops[chain[0][0]]) in CONVOLUTIONS
        clips = len(later) == 1 and canonical(self.flow.ops[later[0]].function) in CLIPPING
        fits = clips if self.roles[later[0]] == ACTIVATION else self.roles[chain[-1][0]] != ACTIVATION
        return convolution and not fits

    def chain(self, piece: tuple[str, ...]) -> list[tuple[str, ...]]:
        for pattern in _CONTINUATIONS.get(self.roles[piece[0]], ()):
            chain = [piece]
            for role in pattern:
                found = self.following(chain[-1])
                if found is None or self.roles[found[0]] != role or self.separate(chain, found):
                    break
                chain.append(found)
            else:
                return chain
        return [piece]


def fuse(flow: Flow) -> Units:
    """Join the ops of a flow into units.

    Patterns: a convolution, matrix product or elementwise op followed by batch norm, an activation function or both in
    either order; batch norm and an activation function in either order; composite activation functions. Of activation
    functions only those that clip join a convolution; the others get the operator `CONVOLUTION_ACTIVATION`.
    """
    fuser = _Fuser(flow)
    of: dict[str, Unit] = {}
    units: list[Unit] = []
    for address, op in flow.ops.items():
        piece = fuser.pieces[address]
        if address in of or piece[0] != address:
            continue
        chain = fuser.chain(piece)
        members = tuple(flow.ops[member] for part in chain for member in part)
        operator = operator_of(op) if len(piece) == 1 else fuser.roles[address]
        if len(chain) > 1 and fuser.roles[address] == ACTIVATION:
            operator = BATCH_NORM
        producers = {of[edge.source].operator for edge in flow.activations_into(address) if edge.source in of}
        if operator == ACTIVATION and producers & CONVOLUTIONS:
            operator = CONVOLUTION_ACTIVATION
        unit = Unit(ops=members, operator=operator)
        units.append(unit)
        of.update((member.address, unit) for member in members)
    position = {address: index for index, address in enumerate(flow.ops)}
    return Units(flow=flow, ordered=tuple(sorted(units, key=lambda unit: position[unit.last.address])), of=of)
