"""Ops that treat every element alike: activations and arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_nncf.dependencies.labels import Ids
from lightning_nncf.dependencies.rules.registry import rule
from lightning_nncf.dependencies.values import WHOLE, Call, Value, varying

__all__ = ["arithmetic", "keeping_zero", "losing_zero", "select_elements"]

_KEEPING_ZERO = """
    relu relu_ relu6 hardtanh hardtanh_ hardswish hardswish_ silu silu_ gelu leaky_relu leaky_relu_ elu elu_ selu selu_
    celu celu_ tanh tanh_ mish softsign tanhshrink softshrink hardshrink rrelu abs neg neg_ sqrt sqrt_ sign square sin
    erf dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout
    contiguous clone detach detach_ to float half double bfloat16 type type_as cpu cuda requires_grad_ positive
    round floor ceil trunc nan_to_num identity stochastic_depth
    """
_LOSING_ZERO = """
    sigmoid sigmoid_ hardsigmoid hardsigmoid_ softplus logsigmoid exp exp_ log log1p cos rsqrt reciprocal rsub rdiv
    clamp clamp_ clip threshold masked_fill masked_fill_ expm1
    """
_ARITHMETIC = """
    add add_ sub sub_ mul mul_ multiply div div_ true_divide maximum minimum max_pointwise pow pow_ addcmul lerp
    """


@rule(*_KEEPING_ZERO.split())
def keeping_zero(call: Call) -> Sequence[Value]:
    """Pass channels on; zeros stay zeros."""
    return [call.value(0)]


@rule(*_LOSING_ZERO.split())
def losing_zero(call: Call) -> Sequence[Value]:
    """Pass channels on; zeros become something else."""
    value = _combined(call)
    return [Value(value.ids, zero=False)]


@rule("where")
def select_elements(call: Call) -> Sequence[Value]:
    """Unite what is chosen between; a scalar may take the place of zeros."""
    return [Value(_combined(call).ids, zero=False)]


@rule(*_ARITHMETIC.split())
def arithmetic(call: Call) -> Sequence[Value]:
    """Unite the operands; a product is zero where one factor is, a sum where all terms are."""
    value = _combined(call)
    if value.ids is None:
        return [WHOLE]
    function = call.op.function.rstrip("_")
    operands = [_operand(call, port) for port in range(len(call.op.inputs))]
    if function in ("mul", "multiply"):
        zero = any(each.ids is not None and each.zero for each in operands)
    elif function in ("div", "true_divide", "pow"):
        zero = operands[0].ids is not None and operands[0].zero
    else:
        zero = len(operands) > 1 and all(each.ids is not None and each.zero for each in operands)
    return [Value(value.ids, zero=zero)]


def _operand(call: Call, port: int) -> Value:
    """Return a value as it is for the zeros: a parameter counts as masked."""
    return Value(np.zeros(1, dtype=np.int64)) if port in call.op.parameters else call.values[port]


def _combined(call: Call) -> Value:
    """Unite all operands along the dimensions in which one of them may lose entries."""
    rank = max(len(info.shape) for info in call.op.inputs)
    ports = [port for port in range(len(call.op.inputs)) if port not in call.op.parameters]
    known = {port: _lifted(call.values[port].ids, rank) for port in ports}
    axes = sorted({axis for ids in known.values() for axis in varying(ids)})
    for port in call.op.parameters:
        known[port] = _parameter(call, port, axes, rank)
        if not axes:
            axes = varying(known[port])
    if not axes:
        return WHOLE
    largest = max((ids for ids in known.values() if ids is not None), key=lambda ids: ids.size)
    for port, ids in known.items():
        shape = (1,) * (rank - len(call.shape(port))) + call.shape(port)
        wide = [axis for axis in axes if shape[axis] > 1]
        if wide and varying(ids) != wide:
            return _refuse(call, known, f"{call.op.function} with a tensor that stays whole")
    for ids in known.values():
        if ids is not None and ids is not largest:
            if any(size not in (1, full) for size, full in zip(ids.shape, largest.shape, strict=True)):
                return _refuse(call, known, "channels meet along different dimensions")
            call.entries.unite(ids, largest)
    return Value(largest)


def _refuse(call: Call, known: dict[int, Ids | None], reason: str) -> Value:
    for ids in known.values():
        call.freeze(Value(ids), reason)
    return WHOLE


def _lifted(ids: Ids | None, rank: int) -> Ids | None:
    """Prepend dimensions as broadcasting does."""
    return None if ids is None else ids.reshape((1,) * (rank - ids.ndim) + ids.shape)


def _parameter(call: Call, port: int, axes: Sequence[int], rank: int) -> Ids | None:
    """Return the entries of a parameter along the dimension in which the other operands may lose some."""
    offset = rank - len(call.shape(port))
    shape = call.shape(port)
    dims = [axis - offset for axis in axes if axis >= offset and shape[axis - offset] > 1]
    if not axes:
        return _lifted(call.value(port).ids, rank)
    return _lifted(call.parameter(port, dims[0], "follower"), rank) if len(dims) == 1 else None
