"""The groups of a network under a configuration."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from lightning_nncf.algorithms.pruning.config import FilterPruningConfig, PruningParams
from lightning_nncf.algorithms.pruning.exclusions import CONVOLUTIONS, nncf_vetoes, weight_of
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.computed_weights import refuse_computed
from lightning_nncf.core.weights import inside_scopes
from lightning_nncf.dependencies.groups import Structure, make_structure
from lightning_nncf.dependencies.propagation import propagate
from lightning_nncf.dependencies.values import Limits
from lightning_nncf.graph.flops import positions_of
from lightning_nncf.graph.graph import NetworkGraph, OpNode
from lightning_nncf.graph.scopes import scope_filter

__all__ = ["analyse"]


def analyse(network: nn.Module, graph: NetworkGraph, config: FilterPruningConfig, root: NNCFConfig) -> Structure:
    """Find the groups of filters that a configuration allows to prune.

    Args:
        network: The network.
        graph: Its captured graph.
        config: Settings of pruning.
        root: The whole configuration, for its scopes.

    Raises:
        ConfigError: A hook computes the weight of a layer.
        ScopeError: A scope matches nothing in the network.
    """
    functions = CONVOLUTIONS | ({"linear"} if config.params.grouping == "full" else set())
    inside = inside_scopes(network, graph, config, root)
    refuse_computed(network, graph, functions, inside, config.algorithm)
    found = _structure(network, graph, config.params, _out_of_scope(network, graph, config, root))
    return replace(found, excluded={**found.excluded, **_never_followed(graph, found, config.params)})


def _structure(network: nn.Module, graph: NetworkGraph, params: PruningParams, vetoes: dict[str, str]) -> Structure:
    if params.grouping == "full":
        return make_structure(propagate(graph, network), vetoes)
    limits = Limits(linear=not params.prune_last_conv, matmul=True, grouped=True)
    ours = nncf_vetoes(
        graph,
        first=params.prune_first_conv,
        last=params.prune_last_conv,
        downsampling=params.prune_downsample_convs,
    )
    return make_structure(propagate(graph, network, limits), {**ours, **vetoes})


def _never_followed(graph: NetworkGraph, structure: Structure, params: PruningParams) -> dict[str, str]:
    """Name the weights of layers in which the analysis numbered no filters, and say why."""
    known = {member.name for group in structure.groups for member in group.filters} | set(structure.excluded)
    allowed = "; `grouping: full` allows it" if params.grouping == "nncf" else ""

    def reason(op: OpNode) -> str:
        whole = op.attributes.get("inside")
        if whole or (op.function not in CONVOLUTIONS and op.function != "linear"):
            return f"`{whole or op.function}` is not understood ({op.address})"
        return f"{'linear layer' if op.function == 'linear' else 'grouped convolution'}{allowed} ({op.address})"

    return {
        op.parameters[port]: reason(op)
        for op in graph.ops()
        for port in positions_of(op)
        if op.parameters[port] not in known
    }


def _out_of_scope(
    network: nn.Module, graph: NetworkGraph, config: FilterPruningConfig, root: NNCFConfig
) -> dict[str, str]:
    """Name the weights that scopes leave out."""
    addresses = [op.address for op in graph.ops()]
    types = {name: type(module).__name__ for name, module in network.named_modules(remove_duplicate=False)}
    filters = [
        scope_filter(
            addresses,
            ignored=section.ignored_scopes,
            target=section.target_scopes,
            module_types=types,
            validate=config.validate_scopes,
        )
        for section in (root, config)
    ]
    outside = [op for op in graph.ops() if not all(inside(op.address) for inside in filters)]
    return {name: f"ignored scope ({op.address})" for op in outside if (name := weight_of(op)) is not None}
