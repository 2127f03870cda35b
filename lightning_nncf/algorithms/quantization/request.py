"""What a configuration asks of the placement and the initialization of quantizers on one graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from lightning_nncf.algorithms.quantization.config import GroupConfig, QuantizationConfig, QuantizerGroup, RangeConfig
from lightning_nncf.algorithms.quantization.overrides import ScopeOverrides
from lightning_nncf.algorithms.quantization.placement import Constraints, GroupSettings, PlacementSettings
from lightning_nncf.algorithms.quantization.setup import QuantizationPoint
from lightning_nncf.config import NNCFConfig
from lightning_nncf.errors import ConfigError, HookError, ScopeError
from lightning_nncf.graph.graph import InsertionPoint, NetworkGraph
from lightning_nncf.graph.scopes import ScopeMatcher, scope_filter
from lightning_nncf.hooks.insertion import HookSite, sites
from lightning_nncf.hooks.weight_sites import weight_sites

__all__ = ["placement_settings", "places_of", "ranges_of"]

_GROUPS: dict[str, QuantizerGroup] = {"weight": "weights", "activation": "activations"}


def placement_settings(
    config: QuantizationConfig, root: NNCFConfig, network: nn.Module, graph: NetworkGraph
) -> PlacementSettings:
    """Translate a configuration into what the placement understands.

    Raises:
        ScopeError: A scope matches nothing in the network.
    """
    scopes = _Scopes(network, graph, validate=config.validate_scopes)
    everywhere = scopes.inside(root.ignored_scopes, root.target_scopes)
    here = scopes.inside(config.ignored_scopes, config.target_scopes)
    bare = _with_bare_weights(network, graph)

    def accepts(point: InsertionPoint) -> bool:
        try:
            return bool(sites(graph, network, point))
        except HookError:
            return False

    return PlacementSettings(
        target_device=root.target_device,
        weights=_group(config, root, "weights", config.weights, scopes),
        activations=_group(config, root, "activations", config.activations, scopes),
        override=scopes.overrides(config).constraints,
        unified=[
            {entry: scopes.selected("activations.unified_scale_ops", entry) for entry in entries}
            for entries in config.activations.unified_scale_ops
        ],
        validate=config.validate_scopes,
        ignored=lambda address: address in bare or not (everywhere(address) and here(address)),
        accepts=accepts,
        quantize_inputs=config.quantize_inputs,
        quantize_outputs=config.quantize_outputs,
        quantize_after_convolutions=config.quantize_after_convolutions,
        overflow_fix=config.overflow_fix,
    )


def ranges_of(
    config: QuantizationConfig, network: nn.Module, graph: NetworkGraph, points: Sequence[QuantizationPoint]
) -> list[RangeConfig]:
    """Find the range initialization of every point: that of its override, else of an entry that concerns it.

    Raises:
        ConfigError: A point is concerned by none or by several entries of ``initializer.range``, or by several
            overrides.
        ScopeError: An override changes no point.
    """
    entries = config.initializer.range
    scopes = _Scopes(network, graph, validate=config.validate_scopes)
    inside = [scopes.inside(entry.ignored_scopes, entry.target_scopes) for entry in entries]
    overrides = scopes.overrides(config)
    if config.validate_scopes:
        overrides.require_effect(points)
    chosen = []
    for point in points:
        own = overrides.range_of(point)
        if own is not None:
            chosen.append(own)
            continue
        found = [
            index
            for index, entry in enumerate(entries)
            if entry.target_quantizer_group in (None, _GROUPS[point.kind]) and inside[index](point.point.address)
        ]
        if len(found) != 1:
            which = "no entry" if not found else "entries " + " and ".join(map(str, found))
            raise ConfigError(
                f"`initializer.range`: the {point.kind} quantizer at {str(point.point)!r} is concerned by {which}; "
                "every quantizer must be concerned by exactly one (see target_scopes, ignored_scopes and "
                "target_quantizer_group)"
            )
        chosen.append(entries[found[0]])
    return chosen


def places_of(network: nn.Module, graph: NetworkGraph, point: QuantizationPoint) -> tuple[HookSite, ...]:
    """Find where modules go for a point: for a weight, wherever the same parameter is read.

    A weight tied between an embedding and a linear layer is one point with one quantizer, but two places.
    """
    if point.kind == "weight":
        return weight_sites(graph, network, graph[point.point.address].parameters[point.point.port])
    return sites(graph, network, point.point)


def _with_bare_weights(network: nn.Module, graph: NetworkGraph) -> set[str]:
    """Return the ops whose weight no module reaches, so that their inputs need none either."""
    taken = [
        (op, name, name in graph.written or op.by_hook or op.reader(port) is None)
        for op in graph.ops()
        for port, name in op.parameters.items()
        if len(op.inputs[port].shape) > 1
    ]
    bare = {
        name for name in {name for _, name, doubtful in taken if doubtful} if not weight_sites(graph, network, name)
    }
    return {op.address for op, name, _ in taken if name in bare}


@dataclass
class _Scopes:
    """Scopes on one graph."""

    network: nn.Module
    graph: NetworkGraph
    validate: bool

    @cached_property
    def types(self) -> dict[str, str]:
        """Class names of all modules."""
        return {name: type(module).__name__ for name, module in self.network.named_modules(remove_duplicate=False)}

    @cached_property
    def addresses(self) -> list[str]:
        """Addresses of all ops."""
        return [op.address for op in self.graph.ops()]

    def inside(self, ignored: Sequence[str], target: Sequence[str] | None) -> Callable[[str], bool]:
        """Return whether an address is targeted and not ignored."""
        return scope_filter(
            self.addresses, ignored=ignored, target=target, module_types=self.types, validate=self.validate
        )

    def matcher(self, key: str, scope: str) -> ScopeMatcher:
        """Return what tells whether a scope selects an address; `key` names it in errors."""
        try:
            return ScopeMatcher([scope], self.addresses, module_types=self.types, validate=self.validate)
        except ScopeError as error:
            raise ScopeError(f"`{key}`: {error}") from None

    def selected(self, key: str, scope: str) -> tuple[str, ...]:
        """Return the addresses that a scope selects."""
        matcher = self.matcher(key, scope)
        return tuple(address for address in self.addresses if matcher(address))

    def overrides(self, config: QuantizationConfig) -> ScopeOverrides:
        """Return the overrides of a configuration."""
        return ScopeOverrides(config.scope_overrides, self.matcher)


def _group(
    config: QuantizationConfig, root: NNCFConfig, name: QuantizerGroup, group: GroupConfig, scopes: _Scopes
) -> GroupSettings:
    inside = scopes.inside(group.ignored_scopes, group.target_scopes)
    return GroupSettings(
        constraints=Constraints(
            mode=config.mode_of(name, root.target_device),
            bits=group.bits,
            signed=group.signed,
            per_channel=group.per_channel,
        ),
        ignored=lambda address: not inside(address),
    )
