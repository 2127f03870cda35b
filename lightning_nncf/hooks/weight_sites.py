"""Where modules go for a weight: at every reading of the parameter, through whatever name and in whatever module.

A parameter has one value in a compressed network. A table that is looked up, multiplied with elsewhere and measured in
a third place is read compressed in all three, or a layer would train against values that its neighbour never sees and
the file would hold the matrix twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from torch import nn

from lightning_nncf.graph.graph import NetworkGraph, OpNode
from lightning_nncf.hooks.hook_site import HookSite

__all__ = ["sites_of_reading", "weight_sites"]


def weight_sites(graph: NetworkGraph, network: nn.Module, parameter: str) -> tuple[HookSite, ...]:
    """Return the places of a parameter: one per name, each with all modules that read it by this name.

    Args:
        graph: Captured graph of the network.
        network: The network.
        parameter: Name of the parameter.

    Returns:
        The places; none, with a warning, for a parameter that one of its readers writes.

    >>> import torch
    >>> from lightning_nncf.capture.trace import trace
    >>> class Tied(nn.Module):
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.table = nn.Embedding(5, 3)
    ...
    ...     def forward(self, ids: torch.Tensor) -> torch.Tensor:
    ...         return self.table(ids) @ self.table.weight.t()
    >>> net = Tied()
    >>> graph = trace(net, lambda: net(torch.tensor([1, 4])))
    >>> [(site.key, site.module, site.readers) for site in weight_sites(graph, net, "table.weight")]
    [('table.lnncf_weight', 'table', ('',))]
    """
    names = _names_of(network, parameter)
    readers: dict[tuple[str, str], dict[str, None]] = {}
    for op, port in _readings(graph, parameter):
        reader = op.reader(port)
        if reader is None or op.by_hook or (reader == "" and graph.example_inputs is None):
            warnings.warn(
                f"operation {op.address!r} gets the weight {parameter!r} from "
                + (f"a hook of module {op.module!r}" if op.by_hook else "outside the forward of every module")
                + ", where it is not compressed; read it in a module's forward",
                stacklevel=2,
            )
            continue
        for name in _names_at(network, reader, names):
            readers.setdefault(name, {})[reader] = None
    hiding = {reader for found in readers.values() for reader in found} & graph.written.get(parameter, set())
    if hiding:
        warnings.warn(
            f"the weight {parameter!r} is not compressed, since the forward of {_quoted(hiding)} writes it: that "
            "would be lost behind its compressed value; write it after each optimizer step to have it compressed",
            stacklevel=1,  # one place, so that it is shown once
        )
        return ()
    found = []
    for name in names:
        if name in readers:
            first, *others = sorted(readers[name], key=lambda reader, holder=name[0]: reader != holder)  # type: ignore[misc]
            found.append(_site(name, first, tuple(others)))
    return tuple(found)


def sites_of_reading(graph: NetworkGraph, network: nn.Module, op: OpNode, port: int) -> tuple[HookSite, ...]:
    """Return those of `weight_sites` that concern the reading of one op."""
    reader = op.reader(port)
    found = weight_sites(graph, network, op.parameters[port])
    return tuple(site for site in found if reader in (site.module, *site.readers))


def _quoted(paths: set[str]) -> str:
    return ", ".join(repr(path) if path else "the network" for path in sorted(paths))


def _site(name: tuple[str, str], reader: str, readers: tuple[str, ...]) -> HookSite:
    holder, attribute = name
    return HookSite(
        kind="weight",
        module=reader,
        readers=readers,
        holder=holder,
        slot=attribute,
        frame=reader,
        parameter=attribute,
    )


def _readings(graph: NetworkGraph, parameter: str) -> Iterator[tuple[OpNode, int]]:
    """Yield the ops that take a parameter, with their ports."""
    for op in graph.ops():
        for port, name in op.parameters.items():
            if name == parameter:
                yield op, port


def _names_of(network: nn.Module, parameter: str) -> list[tuple[str, str]]:
    """Return all names of a parameter, which has several if it is tied, as module and attribute."""
    wanted = dict(network.named_parameters())[parameter]
    return [
        (path, name)
        for path, module in network.named_modules()
        for name, value in module._parameters.items()
        if value is wanted
    ]


def _names_at(network: nn.Module, reader: str, names: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the names by which a module may read a parameter: those at or below it, else any."""
    below = {id(module) for module in network.get_submodule(reader).modules()}
    return [name for name in names if id(network.get_submodule(name[0])) in below] or names
