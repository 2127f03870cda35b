"""Tensors between the layers, named so that what is inserted there finds its channels."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_nncf.dependencies.labels import Ids
from lightning_nncf.dependencies.values import Value, varying
from lightning_nncf.graph.graph import NetworkGraph
from lightning_nncf.hooks.insertion import HookSite

__all__ = ["channels_by_place", "place_of"]

_Values = Mapping[tuple[str, int], Value]


def channels_by_place(graph: NetworkGraph, arrived: _Values, left: _Values) -> dict[str, tuple[int, Ids]]:
    """Name every place where a module can be inserted and the channels of the tensor there are known.

    Args:
        graph: The graph.
        arrived: Values by address of the op and input port.
        left: Values by address of the op and output.

    Returns:
        Name of the place to the axis of the channels and the entries along it, as `place_of` names it.
    """
    found: dict[str, tuple[int, Ids]] = {}
    for side, values in (("in", arrived), ("out", left)):
        for (address, port), value in values.items():
            _note(found, f"{address}#{side}{port}", value)
    for frame in graph.frames.values():
        for side, positions, values in (("in", frame.inputs, arrived), ("out", frame.outputs, left)):
            for key, position in positions.items():
                if key in values:
                    _note(found, f"{frame.path}#{side}{position}", values[key])
    return found


def place_of(site: HookSite) -> str:
    """Name the place of a site between layers.

    >>> site = HookSite(kind="module_input", module="conv", holder="conv", slot="in", frame="conv")
    >>> place_of(site)
    'conv#in0'
    """
    called = f"/{site.function}:{site.index}" if site.kind.startswith("op") else ""
    return f"{site.frame}{called}#{'in' if site.kind.endswith('input') else 'out'}{site.port}"


def _note(found: dict[str, tuple[int, Ids]], place: str, value: Value) -> None:
    axes = varying(value.ids)
    if value.ids is not None and len(axes) == 1:
        found[place] = (axes[0], value.ids.reshape(-1))
