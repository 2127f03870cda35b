"""Convolutions, linear layers and embeddings: where channels begin and end."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_nncf.dependencies.labels import Ids
from lightning_nncf.dependencies.rules.registry import rule
from lightning_nncf.dependencies.values import WHOLE, Call, Value, varying

__all__ = ["convolution", "embedding", "linear", "transposed_convolution"]

_CONSTANT = "a removed channel would not be zero here"


@rule("conv1d", "conv2d", "conv3d")
def convolution(call: Call) -> Sequence[Value]:
    """Consume input channels along dim 1 of the weight, produce filters along dim 0; groups stay together."""
    name = call.op.parameters.get(1)
    if name is None:
        return call.freeze_all("the weight of the convolution is computed")
    weight = call.shape(1)
    axis = len(call.shape(0)) - len(weight) + 1
    groups = int(call.attribute("groups", default=1))
    value = call.value(0)
    if groups == 1:
        _consume(call, value, axis, name, 1, weight[1])
        call.link("in_channels", name, 1)
        filters = _produce(call, name, 0, weight[0])
    else:
        found = _grouped(call, value, axis, name, groups)
        if found is None:
            return [WHOLE]
        filters = found
    call.link("out_channels", name, 0)
    return [Value(_along(filters, axis, len(call.op.outputs[0].shape)))]


def _grouped(call: Call, value: Value, axis: int, name: str, groups: int) -> Ids | None:
    """Unite each group of input channels with the filters that read it."""
    weight = call.shape(1)
    depthwise = weight[1] == 1
    if call.limits.grouped and not depthwise:
        call.freeze(value, "grouped convolution")
        return None
    source = _single(call, value, axis)
    if source is None:
        call.named(name, 0, weight[0], "filter")
        reason = "each filter reads its own channels, and those stay"
        call.freeze(Value(call.entries.of(name, 0, weight[0])), reason)
        return None
    filters = _produce(call, name, 0, weight[0]).reshape(groups, -1)
    first = call.collapse(filters, [1])
    call.entries.unite(source.reshape(groups, -1), first)
    call.link("groups", name, 0, weight[0] // groups)
    call.link("in_channels", name, 0, weight[0] // groups, weight[1])
    return filters.reshape(-1)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(call: Call) -> Sequence[Value]:
    """Consume input channels along dim 0 of the weight, produce filters along dim 1."""
    name = call.op.parameters.get(1)
    if name is None:
        return call.freeze_all("the weight of the convolution is computed")
    weight = call.shape(1)
    axis = len(call.shape(0)) - len(weight) + 1
    rank = len(call.op.outputs[0].shape)
    groups = int(call.attribute("groups", default=1))
    value = call.value(0)
    if groups == 1:
        _consume(call, value, axis, name, 0, weight[0])
        call.link("in_channels", name, 0)
        call.link("out_channels", name, 1)
        return [Value(_along(_produce(call, name, 1, weight[1]), axis, rank))]
    source = _single(call, value, axis)
    if source is None or weight[1] != 1 or groups != weight[0]:
        return call.freeze_all("grouped transposed convolution")
    filters = _produce(call, name, 0, weight[0])
    call.entries.unite(source, filters)
    for attribute in ("groups", "in_channels", "out_channels"):
        call.link(attribute, name, 0)
    return [Value(_along(filters, axis, rank))]


@rule("linear")
def linear(call: Call) -> Sequence[Value]:
    """Consume the last dimension along dim 1 of the weight, produce along dim 0."""
    name = call.op.parameters.get(1)
    value = call.value(0)
    if name is None:
        return call.freeze_all("the weight of the linear layer is computed")
    if call.limits.linear:
        call.freeze(value, "linear layer")
        return [WHOLE]
    weight = call.shape(1)
    rank = len(call.shape(0))
    if any(axis != rank - 1 for axis in varying(value.ids)):
        call.freeze(value, "a linear layer works along another dimension")
        value = WHOLE
    _consume(call, value, rank - 1, name, 1, weight[1])
    call.link("in_features", name, 1)
    call.link("out_features", name, 0)
    return [Value(_along(_produce(call, name, 0, weight[0]), rank - 1, rank))]


@rule("embedding")
def embedding(call: Call) -> Sequence[Value]:
    """Produce features along dim 1 of the table."""
    port = next(iter(call.op.parameters), None)
    if port is None:
        return call.freeze_all("the table of the embedding is computed")
    name, rank = call.op.parameters[port], len(call.op.outputs[0].shape)
    call.link("embedding_dim", name, 1)
    return [Value(_along(call.named(name, 1, call.shape(port)[1], "follower"), rank - 1, rank))]


def _consume(call: Call, value: Value, axis: int, name: str, dim: int, size: int) -> None:
    """Unite the channels that arrive with a dimension of the weight."""
    source = _single(call, value, axis)
    if source is None:
        return
    if not value.zero:
        call.freeze(value, _CONSTANT)
        return
    call.entries.unite(source, call.named(name, dim, size, "input"))


def _produce(call: Call, name: str, dim: int, size: int) -> Ids:
    """Number the filters of a weight, and the entries of its bias with them."""
    filters = call.named(name, dim, size, "filter")
    bias = call.op.parameters.get(2)
    if bias is not None:
        call.entries.unite(filters, call.named(bias, 0, call.shape(2)[0], "follower"))
    elif len(call.op.inputs) > 2:
        call.freeze(Value(filters), "the bias is computed")
    return filters


def _single(call: Call, value: Value, axis: int) -> Ids | None:
    """Return the entries along one axis; entries that differ along others must stay."""
    if value.ids is None:
        return None
    if varying(value.ids) != [axis]:
        call.freeze(value, "channels are mixed with another dimension")
        return None
    return value.ids.reshape(-1)


def _along(ids: Ids, axis: int, rank: int) -> Ids:
    """Lay entries along one axis of a tensor.

    >>> import numpy as np
    >>> _along(np.arange(3), 1, 4).shape
    (1, 3, 1, 1)
    """
    return ids.reshape([-1 if dim == axis else 1 for dim in range(rank)])
