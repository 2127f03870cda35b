"""Ops that move elements: reshaping, permuting, joining, cutting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_nncf.dependencies.labels import Ids
from lightning_nncf.dependencies.rules.registry import rule
from lightning_nncf.dependencies.rules.reshaping import reshape_ids
from lightning_nncf.dependencies.values import WHOLE, Call, Value, varying

__all__ = ["concatenation", "cutting", "expansion", "indexing", "padding", "permutation", "reshaping"]


@rule(
    "reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "squeeze_", "unsqueeze_"
)
def reshaping(call: Call) -> Sequence[Value]:
    """Move entries as the elements move; a dimension that is split may only lose whole slices."""
    value = call.value(0)
    if value.ids is None:
        return [WHOLE]
    ids, splits = reshape_ids(value.ids, call.shape(0), call.op.outputs[0].shape)
    call.records.splits.extend((call.op, split) for split in splits)
    return [Value(ids, zero=value.zero)]


@rule("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "T", "mT", "transpose_")
def permutation(call: Call) -> Sequence[Value]:
    """Permute the dimensions."""
    value = call.value(0)
    if value.ids is None:
        return [WHOLE]
    order = _order(call, value.ids.ndim)
    return call.freeze_all("unknown permutation") if order is None else [Value(value.ids.transpose(order), value.zero)]


def _order(call: Call, rank: int) -> list[int] | None:
    """Return the permutation that an op makes."""
    function = call.op.function
    if function == "permute":
        return [int(dim) % rank for dim in call.attribute("dims", default=range(rank))]
    if function in ("t", "T"):
        return list(range(rank))[::-1]
    if function in ("movedim", "moveaxis"):
        source, target = call.attribute("source"), call.attribute("destination")
        if source is None or target is None:
            return None
        # A view of an array whose sizes name its dimensions shows where each of them goes.
        named = np.broadcast_to(np.zeros(()), tuple(range(rank)))
        return list(np.moveaxis(named, source, target).shape)
    pair = (-2, -1) if function == "mT" else (call.attribute("dim0", "axis0"), call.attribute("dim1", "axis1"))
    if None in pair:
        return None
    first, second = (int(dim) % rank for dim in pair)
    order = list(range(rank))
    order[first], order[second] = order[second], order[first]
    return order


@rule("cat", "concat", "concatenate")
def concatenation(call: Call) -> Sequence[Value]:
    """Put entries side by side; parts that stay whole get entries that stay."""
    values = [call.value(port) for port in range(len(call.op.inputs))]
    rank = len(call.op.outputs[0].shape)
    dim = int(call.attribute("dim", "axis", default=0)) % rank
    tracked = [value for value in values if value.ids is not None]
    if not tracked:
        return [WHOLE]
    axes = sorted({axis for value in tracked for axis in varying(value.ids)})
    zero = all(value.zero for value in tracked)
    if axes == [dim]:
        parts = []
        for port, value in enumerate(values):
            size = call.shape(port)[dim]
            if value.ids is None or not varying(value.ids):
                held = call.entries.of(f"{call.op.address}#{port}", 0, size)
                call.entries.freeze(held, "concatenated with a tensor that stays whole", call.op.address)
                parts.append(held.reshape([-1 if axis == dim else 1 for axis in range(rank)]))
            else:
                parts.append(value.ids)
        return [Value(np.concatenate(parts, axis=dim), zero=zero)]
    if dim not in axes and all(value.ids is not None and varying(value.ids) == axes for value in values):
        for value in tracked[1:]:
            assert value.ids is not None
            assert tracked[0].ids is not None
            call.entries.unite(value.ids, tracked[0].ids)
        return [Value(tracked[0].ids, zero=zero)]
    return call.freeze_all("concatenation along another dimension than the channels")


@rule("stack")
def stacking(call: Call) -> Sequence[Value]:
    """Put entries side by side in a new dimension."""
    values = [call.value(port) for port in range(len(call.op.inputs))]
    shapes = {value.ids.shape for value in values if value.ids is not None}
    if not shapes:
        return [WHOLE]
    if len(shapes) > 1 or any(value.ids is None for value in values):
        return call.freeze_all("stacked with a tensor that stays whole")
    dim = int(call.attribute("dim", default=0)) % len(call.op.outputs[0].shape)
    ids = np.stack([value.ids for value in values if value.ids is not None], axis=dim)
    return [Value(ids, zero=all(value.zero for value in values))]


@rule("chunk", "tensor_split", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split")
def cutting(call: Call) -> Sequence[Value]:
    """Cut entries; parts of equal size lose the same ones, so that they stay of equal size."""
    value = call.value(0)
    outputs = call.op.outputs
    if value.ids is None:
        return [WHOLE] * len(outputs)
    rank = len(call.shape(0))
    dim = int(call.attribute("dim", default=0)) % rank
    if dim not in varying(value.ids):
        return [value] * len(outputs)
    sizes = [info.shape[dim] for info in outputs]
    if len(set(sizes)) > 1:
        return call.freeze_all(f"{call.op.function} into parts of different size")
    parts = np.split(value.ids, len(sizes), axis=dim)
    for part in parts[1:]:
        call.entries.unite(part, parts[0])
    return [Value(part, zero=value.zero) for part in parts]


@rule("unbind")
def unbinding(call: Call) -> Sequence[Value]:
    """Take a dimension apart."""
    value = call.value(0)
    if value.ids is None:
        return [WHOLE] * len(call.op.outputs)
    dim = int(call.attribute("dim", default=0)) % len(call.shape(0))
    return [
        Value(np.take(value.ids, index if value.ids.shape[dim] > 1 else 0, axis=dim), zero=value.zero)
        for index in range(len(call.op.outputs))
    ]


@rule("__getitem__", "select")
def indexing(call: Call) -> Sequence[Value]:
    """Take entries as the elements are taken; a range of channels would move when some are removed."""
    value = call.value(0)
    if value.ids is None:
        return [WHOLE] * len(call.op.outputs)
    if len(call.op.inputs) > 1:
        return call.freeze_all("indexing with a tensor")
    if call.op.function == "select":
        rank = value.ids.ndim
        index: list[Any] = [slice(None)] * rank
        index[int(call.attribute("dim", default=0)) % rank] = call.attribute("index", default=0)
    else:
        parsed = _parse(call.attribute("index", "arg1"), value.ids.ndim)
        if parsed is None:
            return call.freeze_all("indexing that is not understood")
        index = parsed
    axis = 0
    taken: list[Any] = []
    for item in index:
        if item is None:
            taken.append(None)
            continue
        wide = value.ids.shape[axis] > 1
        if isinstance(item, slice) and wide and item != slice(None):
            return call.freeze_all("a range of channels is taken")
        if isinstance(item, slice):
            taken.append(slice(None))
        else:
            taken.append(int(item) if wide else 0)
        axis += 1
    return [Value(value.ids[tuple(taken)], zero=value.zero)]


def _parse(index: Any, rank: int) -> list[Any] | None:
    """Read an index from its plain form, one item per dimension and None for new ones.

    >>> _parse(["slice(None, None, None)", 0], 3)
    [slice(None, None, None), 0, slice(None, None, None)]
    """
    items = index if isinstance(index, list) else [index]
    read: list[Any] = []
    for item in items:
        if item is None or (isinstance(item, int) and not isinstance(item, bool)):
            read.append(item)
        elif item == "Ellipsis":
            read.append(Ellipsis)
        elif isinstance(item, str) and item.startswith("slice("):
            parts = [None if part == "None" else int(part) for part in item[6:-1].split(", ")]
            read.append(slice(*parts))
        else:
            return None
    used = sum(item is not None and item is not Ellipsis for item in read)
    fill = [slice(None)] * (rank - used)
    if Ellipsis in read:
        at = read.index(Ellipsis)
        return [*read[:at], *fill, *read[at + 1 :]]
    return [*read, *fill]


@rule("expand", "expand_as", "broadcast_to")
def expansion(call: Call) -> Sequence[Value]:
    """Prepend dimensions; expanded ones have nothing to remove."""
    value = call.value(0)
    if value.ids is None:
        return [WHOLE]
    rank = len(call.op.outputs[0].shape)
    return [Value(value.ids.reshape((1,) * (rank - value.ids.ndim) + value.ids.shape), zero=value.zero)]


@rule("repeat", "tile")
def repetition(call: Call) -> Sequence[Value]:
    """Repeat the entries of a dimension as its elements are repeated."""
    value = call.value(0)
    if value.ids is None:
        return [WHOLE]
    shape, rank = call.op.outputs[0].shape, len(call.op.outputs[0].shape)
    ids = value.ids.reshape((1,) * (rank - value.ids.ndim) + value.ids.shape)
    times = [full // size if size > 1 else 1 for full, size in zip(shape, ids.shape, strict=True)]
    return [Value(np.tile(ids, times), zero=value.zero)]


@rule("roll", "flip")
def moving(call: Call) -> Sequence[Value]:
    """Pass channels on when only other dimensions move."""
    value = call.value(0)
    dims = call.attribute("dims", default=None)
    rank = len(call.shape(0))
    moved = range(rank) if dims is None else [d % rank for d in ([dims] if isinstance(dims, int) else dims)]
    if any(axis in moved for axis in varying(value.ids)):
        return call.freeze_all(f"{call.op.function} moves channels")
    return [value]


@rule("pad")
def padding(call: Call) -> Sequence[Value]:
    """Pass channels on when only other dimensions are padded."""
    value = call.value(0)
    sizes = zip(call.shape(0), call.op.outputs[0].shape, strict=True)
    if any(call.shape(0)[axis] != call.op.outputs[0].shape[axis] for axis in varying(value.ids)):
        return call.freeze_all("padding adds channels")
    constant = call.attribute("mode", default="constant") == "constant" and bool(call.attribute("value", default=0))
    grows = any(before != after for before, after in sizes)
    return [Value(value.ids, zero=value.zero and not (constant and grows))]


@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle")
def shuffling(call: Call) -> Sequence[Value]:
    """Move channels into space, back, or among themselves."""
    value = call.value(0)
    if value.ids is None:
        return [WHOLE]
    if varying(value.ids) != [1]:
        return call.freeze_all("channels are mixed with another dimension")
    channels = value.ids.reshape(-1)
    if call.op.function == "pixel_shuffle":
        square = int(call.attribute("upscale_factor")) ** 2
        moved: Ids = call.collapse(channels.reshape(-1, square), [1]).reshape(-1)
    elif call.op.function == "pixel_unshuffle":
        moved = np.repeat(channels, int(call.attribute("downscale_factor")) ** 2)
    else:
        split = channels.reshape(int(call.attribute("groups")), -1)
        first = call.collapse(split, [0])
        moved = np.broadcast_to(first, split.shape).T.reshape(-1)
    return [Value(moved.reshape(1, -1, 1, 1), zero=value.zero)]
