"""Products of activations: matmul and attention, where removed entries may be whole heads."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_nncf.dependencies.labels import Ids
from lightning_nncf.dependencies.rules.registry import rule
from lightning_nncf.dependencies.values import WHOLE, Call, Value, varying

__all__ = ["attention", "matmul"]


@rule("matmul", "bmm")
def matmul(call: Call) -> Sequence[Value]:
    """Batch dimensions lose the same entries, and so does the dimension that is summed over."""
    left, right = call.value(0), call.value(1)
    if left.ids is None and right.ids is None:
        return [WHOLE]
    if call.limits.matmul or min(len(call.shape(0)), len(call.shape(1))) < 2:
        return call.freeze_all(f"{call.op.function} of activations")
    return [_product(call, left, right, 0, 1)]


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Sequence[Value]:
    """Keep or remove whole heads; the width of a head sets the scale, so it stays."""
    query, key, value = (call.value(port) for port in range(3))
    if query.ids is None and key.ids is None and value.ids is None:
        return [WHOLE]
    if call.limits.matmul or any(each.ids is not None for each in call.values[3:]):
        return call.freeze_all("attention")
    heads = [info.shape[:-2] for info in call.op.inputs[:3]]
    if heads[0] != heads[1] or heads[1] != heads[2]:
        return call.freeze_all("attention whose queries and keys have different numbers of heads")
    rank = len(call.shape(0))
    for each in (query, key):
        if varying(each.ids) and all(axis >= rank - 2 for axis in varying(each.ids)):
            return call.freeze_all("the width of a head sets the scale of attention")
    kept = [None if each.ids is None else call.collapse(each.ids, [-2, -1]) for each in (query, key)]
    scores = _batch(call, kept, [0, 1])
    if scores is None:
        if varying(value.ids) == [rank - 1]:
            return [value]
        call.freeze(value, "attention with scores that stay whole")
        return [WHOLE]
    if value.ids is None:
        return call.freeze_all("attention with values that stay whole")
    heads_of_values = call.collapse(value.ids, [-2, -1])
    call.entries.unite(scores, heads_of_values)
    return [Value(heads_of_values, zero=value.zero)]


def _product(call: Call, left: Value, right: Value, left_port: int, right_port: int) -> Value:
    """Return the value of a batched matrix product [..., M, K] x [..., K, N]."""
    rank = max(len(call.shape(left_port)), len(call.shape(right_port)))
    sides = []
    for value in (left, right):
        ids = None if value.ids is None else value.ids.reshape((1,) * (rank - value.ids.ndim) + value.ids.shape)
        if ids is not None and any(axis < rank - 2 for axis in varying(ids)):
            ids = call.collapse(ids, [-2, -1])
        sides.append(ids)
    axes = [axis for ids in sides for axis in varying(ids)]
    if any(axis < rank - 2 for axis in axes):
        batch = _batch(call, sides, [left_port, right_port])
        return WHOLE if batch is None else Value(batch, zero=_zero(left) or _zero(right))
    return _matrix(call, left, right, sides, rank)


def _matrix(call: Call, left: Value, right: Value, sides: Sequence[Ids | None], rank: int) -> Value:
    """Handle rows, columns and the dimension that is summed over."""
    rows, columns = rank - 2, rank - 1
    summed = (varying(sides[0]) == [columns], varying(sides[1]) == [rows])
    free = (varying(sides[0]) == [rows], varying(sides[1]) == [columns])
    if all(summed) and sides[0] is not None and sides[1] is not None and (left.zero or right.zero):
        call.entries.unite(sides[0].reshape(-1), sides[1].reshape(-1))
        return WHOLE
    if free[0] and sides[1] is None:
        return Value(sides[0], zero=left.zero)
    if free[1] and sides[0] is None:
        return Value(sides[1], zero=right.zero)
    call.freeze(left, "product with a tensor that stays whole")
    call.freeze(right, "product with a tensor that stays whole")
    return WHOLE


def _batch(call: Call, sides: Sequence[Ids | None], ports: Sequence[int]) -> Ids | None:
    """Unite two operands along their batch dimensions; both lose entries there or none."""
    first, second = sides
    rank = max(len(call.shape(port)) for port in ports)
    inside = all(axis < rank - 2 for ids in sides for axis in varying(ids))
    if first is None or second is None or not inside or first.shape != second.shape:
        for ids in sides:
            call.freeze(Value(ids), "product with a tensor that stays whole")
        return None
    call.entries.unite(first, second)
    return first


def _zero(value: Value) -> bool:
    return value.ids is not None and value.zero
