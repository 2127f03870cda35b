"""What is known of one tensor in the network, and of one op that rules are asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from lightning_nncf.dependencies.labels import Entries, Ids
from lightning_nncf.graph.graph import OpNode

__all__ = ["WHOLE", "Call", "Limits", "Link", "Records", "Role", "Value", "varying"]

Role = Literal["filter", "follower", "norm", "input", "buffer", "activation"]
"""Part of a parameter's dimension in pruning. ``filter``: its slices produce channels and are ranked. ``follower`` and
``norm`` (of a normalization): masked with the channel. ``input``: only sliced. ``buffer``: a statistic, only sliced.
``activation``: no parameter but a tensor between layers, of which only what is inserted there is sliced."""


@dataclass(frozen=True)
class Value:
    """Which entries of a tensor are removed with which filters.

    Args:
        ids: Numbers of entries; rank of the tensor, a size of 1 where nothing is removed. None: the tensor is whole.
        zero: Whether masked entries are zero, as they are for whoever reads the shrunk tensor.
    """

    ids: Ids | None
    zero: bool = True


WHOLE = Value(None)


@dataclass(frozen=True)
class Link:
    """A plain attribute of a module that follows the size of a parameter: ``size // divisor * factor``.

    Args:
        module: Path of the module.
        attribute: Its name, as in ``num_features``.
        parameter: Name of the parameter.
        dim: Its dimension.
        divisor: See above.
        factor: See above.
    """

    module: str
    attribute: str
    parameter: str
    dim: int
    divisor: int = 1
    factor: int = 1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Which ops end the analysis although they could be followed.

    Args:
        linear: Linear layers are neither pruned nor do they accept fewer channels.
        matmul: Products of activations do not accept fewer channels.
        grouped: Grouped convolutions are not pruned and do not accept fewer channels.
    """

    linear: bool = False
    matmul: bool = False
    grouped: bool = False


@dataclass
class Records:
    """What the rules find out beside the values.

    Args:
        roles: ``(parameter, dim)`` to its role; an input that is also a filter counts as a filter.
        links: Attributes that follow sizes.
        splits: Entries of a dimension that an op splits into several: the remaining ones must form a box.
    """

    roles: dict[tuple[str, int], Role] = field(default_factory=dict)
    links: dict[tuple[str, str], Link] = field(default_factory=dict)
    splits: list[tuple[OpNode, Ids]] = field(default_factory=list)


@dataclass(frozen=True)
class Call:
    """One op with the values that arrive at it.

    Args:
        op: The op.
        values: Value per input port, parameters not included.
        entries: The numbered entries.
        records: What rules add to.
        modules: Modules of the network by path.
        limits: Where to stop.
    """

    op: OpNode
    values: Sequence[Value]
    entries: Entries
    records: Records
    modules: dict[str, nn.Module]
    limits: Limits

    def value(self, port: int) -> Value:
        """Return the value at a port; a parameter with one dimension of interest is followed like a tensor."""
        if port >= len(self.values):
            return WHOLE
        name = self.op.parameters.get(port)
        if name is None:
            return self.values[port]
        shape = self.shape(port)
        dims = [dim for dim, size in enumerate(shape) if size > 1]
        return Value(self.parameter(port, dims[0], "follower")) if len(dims) == 1 else WHOLE

    def parameter(self, port: int, dim: int, role: Role) -> Ids:
        """Return the entries along one dimension of the parameter at a port, in the parameter's rank."""
        shape = self.shape(port)
        ids = self.named(self.op.parameters[port], dim, shape[dim], role)
        return ids.reshape([-1 if axis == dim else 1 for axis in range(len(shape))])

    def named(self, name: str, dim: int, size: int, role: Role) -> Ids:
        """Return the entries along one dimension of a parameter or buffer by name, shape [size]."""
        known = self.records.roles.get((name, dim))
        if known is None or role == "filter" or known == "input":
            self.records.roles[name, dim] = role
        return self.entries.of(name, dim, size)

    def link(self, attribute: str, parameter: str, dim: int, divisor: int = 1, factor: int = 1) -> None:
        """Note that an attribute of the calling module follows the size of a parameter, if it has the attribute."""
        if isinstance(getattr(self.modules[self.op.module], attribute, None), int):
            self.records.links[self.op.module, attribute] = Link(
                self.op.module, attribute, parameter, dim, divisor, factor
            )

    def shape(self, port: int) -> tuple[int, ...]:
        """Return the shape of the tensor at an input port."""
        return self.op.inputs[port].shape

    def attribute(self, *names: str, default: Any = None) -> Any:
        """Return the first attribute of the op that is there."""
        return next((self.op.attributes[name] for name in names if name in self.op.attributes), default)

    def freeze(self, value: Value, reason: str) -> Value:
        """State that the entries of a value must stay; return the whole value."""
        if value.ids is not None:
            self.entries.freeze(value.ids, reason, self.op.address)
        return WHOLE

    def freeze_all(self, reason: str) -> list[Value]:
        """State that everything that arrives must stay; return whole outputs."""
        for value in self.values:
            self.freeze(value, reason)
        return [WHOLE] * max(len(self.op.outputs), 1)

    def collapse(self, ids: Ids, axes: Sequence[int]) -> Ids:
        """Unite the entries along axes, so that they are removed together or not at all; those axes get size 1."""
        axes = [axis % ids.ndim for axis in axes]
        first = ids[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(ids.ndim))]
        if first.size != ids.size:
            self.entries.unite(ids, first)
        return first


def varying(ids: Ids | None) -> list[int]:
    """Return the axes along which entries differ.

    >>> import numpy as np
    >>> varying(np.zeros((1, 4, 1, 2), dtype=np.int64))
    [1, 3]
    """
    return [] if ids is None else [axis for axis, size in enumerate(ids.shape) if size > 1]
