"""Normalizations: parameters and statistics that go with the channels."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_nncf.dependencies.rules.registry import rule
from lightning_nncf.dependencies.values import WHOLE, Call, Value, varying

__all__ = ["batch_norm", "group_norm", "layer_norm", "normalize", "prelu"]


@rule("batch_norm", "instance_norm")
def batch_norm(call: Call) -> Sequence[Value]:
    """Pass channels on; scale, shift and running statistics follow them."""
    value = call.value(0)
    names = _parameters(call)
    if value.ids is None:
        return [WHOLE]
    if varying(value.ids) != [1]:
        return call.freeze_all("channels are mixed with another dimension")
    channels = value.ids.reshape(-1)
    for name in names:
        call.entries.unite(channels, call.named(name, 0, channels.size, "norm"))
    for name, buffer in call.modules[call.op.module].named_buffers(prefix=call.op.module, recurse=False):
        if buffer.shape == channels.shape:
            call.entries.unite(channels, call.named(name, 0, channels.size, "buffer"))
            call.link("num_features", name, 0)
    if names:
        call.link("num_features", names[0], 0)
    # Without a scale to mask, the running mean of a masked channel shifts it away from zero.
    keeps_zero = call.op.function == "instance_norm" and value.zero
    return [Value(value.ids, zero=bool(names) or keeps_zero)]


@rule("group_norm")
def group_norm(call: Call) -> Sequence[Value]:
    """Pass channels on in whole groups, since the channels of a group are normalized together."""
    value = call.value(0)
    if value.ids is None:
        return [WHOLE]
    if varying(value.ids) != [1]:
        return call.freeze_all("channels are mixed with another dimension")
    channels = value.ids.reshape(-1)
    groups = int(call.attribute("num_groups", default=1))
    names = _parameters(call)
    if groups == 1 or not names:
        return call.freeze_all(
            "group norm over all channels" if groups == 1 else "group norm without parameters to follow"
        )
    call.collapse(channels.reshape(groups, -1), [1])
    for name in names:
        call.entries.unite(channels, call.named(name, 0, channels.size, "norm"))
    call.link("num_channels", names[0], 0)
    call.link("num_groups", names[0], 0, channels.size // groups)
    return [Value(value.ids)]


@rule("layer_norm", "rms_norm")
def layer_norm(call: Call) -> Sequence[Value]:
    """Normalized dimensions must stay: their statistics would change with every channel removed."""
    value = call.value(0)
    if value.ids is None:
        return [WHOLE]
    normalized = len(call.attribute("normalized_shape", default=(0,)))
    rank = len(call.shape(0))
    if any(axis >= rank - normalized for axis in varying(value.ids)):
        return call.freeze_all(f"{call.op.function} takes statistics over the channels")
    return [Value(value.ids, zero=False)]


@rule("normalize")
def normalize(call: Call) -> Sequence[Value]:
    """Pass everything on: zeros do not change a norm."""
    value = call.value(0)
    return [value] if value.zero else call.freeze_all("a removed channel would not be zero here")


@rule("prelu")
def prelu(call: Call) -> Sequence[Value]:
    """Pass channels on; a slope per channel follows them."""
    value = call.value(0)
    if value.ids is None or call.shape(1) == (1,):
        return [value]
    if 1 not in call.op.parameters or varying(value.ids) != [1]:
        return call.freeze_all("slopes are computed or channels mixed with another dimension")
    call.entries.unite(value.ids.reshape(-1), call.parameter(1, 0, "follower"))
    call.link("num_parameters", call.op.parameters[1], 0)
    return [value]


def _parameters(call: Call) -> list[str]:
    """Return the names of the scale and shift."""
    size = call.shape(0)[1] if len(call.shape(0)) > 1 else 0
    return [name for port, name in call.op.parameters.items() if call.shape(port) == (size,)]
