"""Where an op takes its weights from: parameters given to it as they are, or turned around on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_nncf.algorithms.quantization.placement.operators import canonical, operator_of, weight_ports
from lightning_nncf.graph.graph import Edge, OpNode

__all__ = ["Reading", "Weight", "find_readings", "find_weights"]

_UNCHANGED = frozenset({"contiguous", "detach", "clone", "alias", "identity", "to"})
_LAST_AXIS = frozenset({"matmul", "mm", "bmm", "addmm", "baddbmm"})
_REPEATED = frozenset({"expand", "expand_as", "broadcast_to"})
_CUT = frozenset({"narrow", "chunk", "split", "tensor_split", "unsafe_chunk", "unsafe_split", "split_with_sizes"})


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A parameter that is the weight of an op.

    Args:
        name: Name of the parameter.
        address: Address of the op that takes the parameter: the weighted op or a transposition before it.
        port: Input port of that op.
        shape: Shape of the parameter.
        channel_axis: Axis of the output channels in the parameter.
    """

    name: str
    address: str
    port: int
    shape: tuple[int, ...]
    channel_axis: int


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A parameter that an op multiplies with after its values were moved: sliced, reshaped, repeated.

    Such a parameter is no weight of the op, since no runtime looks for a quantized weight behind other ops.

    Args:
        name: Name of the parameter.
        port: Input port of the op.
        channel_axis: Axis of the output channels in the parameter; ``None`` where they have none of their own.
    """

    name: str
    port: int
    channel_axis: int | None


def _channel_axis(op: OpNode, port: int) -> int:
    """Return the axis of the output channels in the tensor at the weight port."""
    name = canonical(op.function)
    if name in _LAST_AXIS:
        rank = len(op.inputs[port].shape)
        is_left = port == weight_ports(op)[1]
        return max(rank - 2, 0) if is_left else rank - 1
    if operator_of(op) == "ConvolutionBackpropData":
        # With one output channel per group, the groups are the channels.
        return 0 if op.attributes.get("groups", 1) > 1 and op.inputs[port].shape[1] == 1 else 1
    return 0


def _before_turn(op: OpNode, axis: int) -> int | None:
    """Return which axis of the op's input is ``axis`` of its output, ``None`` if the op mixes axes."""
    name, rank = canonical(op.function), len(op.inputs[0].shape)
    if name in _UNCHANGED:
        return axis
    if name in ("t", "T", "mT", "adjoint") and rank == 2:
        return 1 - axis
    if name in ("transpose", "swapaxes", "swapdims"):
        dims = [op.attributes.get(key) for key in ("dim0", "dim1")]
        if all(isinstance(dim, int) for dim in dims):
            first, second = (int(dim) % rank for dim in dims if dim is not None)
            return {first: second, second: first}.get(axis, axis)
        return 1 - axis if rank == 2 else None
    if name == "permute" and isinstance(op.attributes.get("dims"), (list, tuple)):
        return int(op.attributes["dims"][axis]) % rank
    return None


def _before_move(op: OpNode, axis: int) -> int | None:
    """Do what `_before_turn` does also for ops that slice, reshape or repeat, as far as shapes tell."""
    turned = _before_turn(op, axis)
    if turned is not None or not op.outputs:
        return turned
    before, after, name = op.inputs[0].shape, op.outputs[0].shape, canonical(op.function)
    if name in _REPEATED:
        moved = axis + len(before) - len(after)
        return moved if moved >= 0 and before[moved] == after[axis] else None
    if name in _CUT or (name == "getitem" and len(before) == len(after)):
        return axis if before[axis] == after[axis] else None
    if math.prod(before) != math.prod(after):
        return None
    ahead = math.prod(after[:axis])
    return next(
        (index for index, size in enumerate(before) if size == after[axis] and math.prod(before[:index]) == ahead),
        None,
    )


def find_readings(op: OpNode, ops: Mapping[str, OpNode], inputs: Mapping[str, Sequence[Edge]]) -> tuple[Reading, ...]:
    """Return the parameters that an op multiplies with after their values were moved."""
    found = []
    for port in weight_ports(op):
        if port >= len(op.inputs):
            continue
        at: tuple[OpNode, int] = (op, port)
        axis: int | None = _channel_axis(op, port)
        while at[1] not in at[0].parameters:
            edge = next((edge for edge in inputs[at[0].address] if edge.port == at[1]), None)
            if edge is None or operator_of(ops[edge.source]) != "Agnostic" or edge.output:
                break
            axis = None if axis is None else _before_move(ops[edge.source], axis)
            at = ops[edge.source], 0
        else:
            found.append(Reading(name=at[0].parameters[at[1]], port=port, channel_axis=axis))
    return tuple(found)


def find_weights(op: OpNode, ops: Mapping[str, OpNode], inputs: Mapping[str, Sequence[Edge]]) -> tuple[Weight, ...]:
    """Return the weights of an op, empty if it has none or computes it in some other way.

    Recurrent layers have several, their matrices; others have one.
    """
    if operator_of(op) == "Recurrent":
        return tuple(
            Weight(name=name, address=op.address, port=port, shape=op.inputs[port].shape, channel_axis=0)
            for port, name in sorted(op.parameters.items())
            if len(op.inputs[port].shape) == 2 and name.rpartition(".")[2].startswith("weight")
        )
    found = _only_weight(op, ops, inputs)
    return () if found is None else (found,)


def _only_weight(op: OpNode, ops: Mapping[str, OpNode], inputs: Mapping[str, Sequence[Edge]]) -> Weight | None:
    for port in weight_ports(op):
        found, at, axis = op, port, _channel_axis(op, port) if port < len(op.inputs) else 0
        while at not in found.parameters:
            edge = next((edge for edge in inputs[found.address] if edge.port == at), None)
            turned = None if edge is None else _before_turn(ops[edge.source], axis) if ops[edge.source].inputs else None
            if edge is None or turned is None:
                break
            found, at, axis = ops[edge.source], 0, turned
        else:
            shape = found.inputs[at].shape
            if len(shape) > axis and (len(shape) > 1 or operator_of(op) == "Embedding"):
                return Weight(name=found.parameters[at], address=found.address, port=at, shape=shape, channel_axis=axis)
    return None
