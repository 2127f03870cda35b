"""What NNCF does not prune, found on the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lightning_nncf.graph.graph import INPUT, OUTPUT, NetworkGraph, OpNode

__all__ = ["CONVOLUTIONS", "first_convolutions", "last_convolutions", "nncf_vetoes", "weight_of"]

_PLAIN = frozenset({"conv1d", "conv2d", "conv3d"})
CONVOLUTIONS = _PLAIN | {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
"""Functions whose filters NNCF prunes."""


def weight_of(op: OpNode) -> str | None:
    """Return the name of an op's weight, if that is a parameter."""
    return op.parameters.get(1)


def first_convolutions(graph: NetworkGraph) -> list[OpNode]:
    """Return the convolutions that see an input of the network with no other one in between."""
    inputs = (op.address for op in graph.ops() if op.function == INPUT)
    return _nearest(graph, inputs, lambda address: graph.graph.successors(address))


def last_convolutions(graph: NetworkGraph) -> list[OpNode]:
    """Return the convolutions from which an output of the network is reached with no other one in between."""
    outputs = (op.address for op in graph.ops() if op.function == OUTPUT)
    return _nearest(graph, outputs, lambda address: graph.graph.predecessors(address))


def nncf_vetoes(graph: NetworkGraph, *, first: bool, last: bool, downsampling: bool) -> dict[str, str]:
    """Name the weights whose filters NNCF keeps.

    Args:
        graph: The graph.
        first: Whether the first convolutions are pruned.
        last: Whether the last ones are.
        downsampling: Whether convolutions with a stride are.

    Returns:
        Name of the weight to the reason.
    """
    vetoes: dict[str, str] = {}

    def veto(ops: Iterable[OpNode], reason: str) -> None:
        for op in ops:
            name = weight_of(op)
            if name is not None:
                vetoes.setdefault(name, f"{reason} ({op.address})")

    if not first:
        veto(first_convolutions(graph), "first convolution; `prune_first_conv` allows it")
    if not last:
        veto(last_convolutions(graph), "last convolution; `prune_last_conv` allows it")
    if not downsampling:
        strided = [op for op in graph.ops() if op.function in _PLAIN and _strided(op)]
        veto(strided, "convolution with a stride; `prune_downsample_convs` allows it")
    return vetoes


def _strided(op: OpNode) -> bool:
    stride = op.attributes.get("stride", 1)
    return any(size != 1 for size in (stride if isinstance(stride, list) else [stride]))


def _nearest(graph: NetworkGraph, start: Iterable[str], step: Callable[[str], Iterable[str]]) -> list[OpNode]:
    """Walk from ops in one direction and return the convolutions that are met first."""
    waiting, seen, found = list(start), set[str](), []
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        seen.add(address)
        op = graph[address]
        if op.function in CONVOLUTIONS:
            found.append(op)
        else:
            waiting.extend(step(address))
    return found
