"""Ops that combine the elements along dimensions: means, sums, softmax, pooling."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_nncf.dependencies.rules.registry import rule
from lightning_nncf.dependencies.values import WHOLE, Call, Value, varying

__all__ = ["pooling", "reduction", "softmax"]

POOLING = [
    f"{kind}{n}d{suffix}"
    for n in (1, 2, 3)
    for kind, suffix in (
        ("max_pool", ""),
        ("avg_pool", ""),
        ("lp_pool", ""),
        ("adaptive_avg_pool", ""),
        ("adaptive_max_pool", ""),
        ("max_pool", "_with_indices"),
        ("adaptive_max_pool", "_with_indices"),
    )
]


@rule(*POOLING, "interpolate", "upsample", "grid_sample", "_max_pool2d")
def pooling(call: Call) -> Sequence[Value]:
    """Pass channels on; nothing may be removed along the dimensions that are pooled."""
    value = call.value(0)
    rank = len(call.shape(0))
    spatial = rank - 2 if call.op.function in ("interpolate", "upsample", "grid_sample") else _pooled(call)
    if any(axis >= rank - spatial for axis in varying(value.ids)):
        return call.freeze_all(f"{call.op.function} works along the channels")
    return [value] * len(call.op.outputs)


@rule("mean", "sum", "amax", "amin", "max", "min", "std", "var", "norm", "logsumexp", "prod")
def reduction(call: Call) -> Sequence[Value]:
    """Drop the dimensions that are reduced; only a sum may run over removed zeros."""
    value = call.value(0)
    if value.ids is None:
        return call.freeze_all(f"{call.op.function} with a tensor that stays whole")
    if len(call.values) > 1:
        return call.freeze_all(f"{call.op.function} of two tensors")
    rank = len(call.shape(0))
    dims = call.attribute("dim", "axis", default=None)
    chosen = list(range(rank)) if dims is None else [d % rank for d in ([dims] if isinstance(dims, int) else dims)]
    keep = bool(call.attribute("keepdim", "keepdims", default=False))
    lost = [axis for axis in varying(value.ids) if axis in chosen]
    if lost and not (call.op.function in ("sum", "norm") and value.zero):
        return call.freeze_all(f"{call.op.function} runs over the channels")
    ids = value.ids
    if lost:
        if len(varying(ids)) > len(lost):
            return call.freeze_all("channels are mixed with another dimension")
        return [WHOLE] * len(call.op.outputs)
    if not keep:
        ids = ids.reshape([size for axis, size in enumerate(ids.shape) if axis not in chosen])
    zero = value.zero and call.op.function != "logsumexp"
    return [Value(ids, zero=zero)] * len(call.op.outputs)


@rule("softmax", "log_softmax", "softmin", "cumsum", "argmax", "argsort", "sort", "topk", "glu")
def softmax(call: Call) -> Sequence[Value]:
    """Pass the other dimensions on; entries along this one depend on each other."""
    value = call.value(0)
    if value.ids is None:
        return [WHOLE] * len(call.op.outputs)
    rank = len(call.shape(0))
    dim = call.attribute("dim", default=-1)
    if call.op.function == "glu" and dim is not None and varying(value.ids) == [dim % rank]:
        # One half gates the other, so both lose the same entries.
        ids = value.ids
        halves = ids.reshape(2, -1)
        call.entries.unite(halves[0], halves[1])
        half = halves[0].reshape([size // 2 if size > 1 else 1 for size in ids.shape])
        return [Value(half, zero=value.zero)]
    if dim is None or dim % rank in varying(value.ids) or call.op.function not in ("softmax", "log_softmax", "softmin"):
        return call.freeze_all(f"{call.op.function} runs over the channels")
    return [Value(value.ids, zero=False)]


def _pooled(call: Call) -> int:
    """Return over how many dimensions a pooling works, from the digit in its name."""
    return next(int(letter) for letter in call.op.function if letter.isdigit())
