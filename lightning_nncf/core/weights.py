"""The weights of a network that an algorithm compresses, found in the graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lightning_nncf.config import AlgorithmConfig, NNCFConfig
from lightning_nncf.errors import ConfigError
from lightning_nncf.graph.graph import NetworkGraph, OpNode
from lightning_nncf.graph.scopes import scope_filter
from lightning_nncf.hooks.insertion import HookSite, insert
from lightning_nncf.hooks.weight_sites import weight_sites

__all__ = ["CONVOLUTIONS", "WeightPlace", "find_weights", "insert_at", "inside_scopes", "refuse_frozen"]

CONVOLUTIONS = frozenset(
    {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"},
)
"""Functions that convolve."""


@dataclass(frozen=True, kw_only=True)
class WeightPlace:
    """A parameter that is the weight of one or more ops.

    Args:
        name: Name of the parameter in the network.
        shape: Its shape.
        function: Function of the first op that takes it.
        address: Address of that op.
        groups: Groups of that op, if it is a convolution.
        sites: Where the ops read it.
    """

    name: str
    shape: tuple[int, ...]
    function: str
    address: str
    groups: int
    sites: tuple[HookSite, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the place as plain values for a checkpoint."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "function": self.function,
            "address": self.address,
            "groups": self.groups,
            "sites": [site.to_dict() for site in self.sites],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WeightPlace:
        """Rebuild a place from `to_dict`."""
        located = tuple(HookSite.from_dict(site) for site in values["sites"])
        return cls(**{**values, "shape": tuple(values["shape"]), "sites": located})

    def parameter_of(self, network: nn.Module) -> nn.Parameter:
        """Return the parameter."""
        return self.sites[0].parameter_of(network)

    def resized(self, network: nn.Module) -> WeightPlace:
        """Return the place with the shape that the parameter has now: pruning may have made it smaller."""
        return replace(self, shape=tuple(self.parameter_of(network).shape))


def inside_scopes(
    network: nn.Module, graph: NetworkGraph, config: AlgorithmConfig, root: NNCFConfig
) -> Callable[[str], bool]:
    """Return whether an op, given by its address, is in the scopes of an algorithm and of the whole configuration.

    Raises:
        ScopeError: A scope matches nothing in the network.
    """
    types = {name: type(module).__name__ for name, module in network.named_modules(remove_duplicate=False)}
    addresses = [op.address for op in graph.ops()]
    filters = [
        scope_filter(
            addresses,
            ignored=section.ignored_scopes,
            target=section.target_scopes,
            module_types=types,
            validate=config.validate_scopes,
        )
        for section in (config, root)
    ]
    return lambda address: all(inside(address) for inside in filters)


def find_weights(
    network: nn.Module, graph: NetworkGraph, functions: Collection[str], inside: Callable[[str], bool]
) -> list[WeightPlace]:
    """Find the parameters that are weights of certain functions; one that several ops share is found once.

    A parameter is found if any of its ops is inside, and then compressed for all of them.

    Args:
        network: The network.
        graph: Its captured graph.
        functions: Names of functions such as ``conv2d``.
        inside: Whether to look at the op at an address.
    """
    takers: dict[str, list[tuple[OpNode, int]]] = {}
    for op in graph.ops():
        if op.function in functions:
            for port, name in op.parameters.items():
                if len(op.inputs[port].shape) > 1 and not name.rpartition(".")[2].startswith("bias"):
                    takers.setdefault(name, []).append((op, port))
    places = []
    for name, ops in takers.items():
        if not any(inside(op.address) for op, _ in ops):
            continue
        located = weight_sites(graph, network, name)
        if located:
            first, port = ops[0]
            places.append(
                WeightPlace(
                    name=name,
                    shape=first.inputs[port].shape,
                    function=first.function,
                    address=first.address,
                    groups=int(first.attributes.get("groups") or 1),
                    sites=located,
                )
            )
    return places


def insert_at(network: nn.Module, place: WeightPlace, module: nn.Module, *, algorithm: str, priority: int) -> None:
    """Insert one module wherever a weight is read, on the weight's device."""
    module.to(place.parameter_of(network).device)
    for site in place.sites:
        insert(network, site, module, algorithm=algorithm, priority=priority)


def refuse_frozen(network: nn.Module, places: Sequence[WeightPlace], algorithm: str) -> None:
    """Refuse weights that are not trained.

    Raises:
        ConfigError: A weight does not require gradients.
    """
    frozen = [place.address for place in places if not place.parameter_of(network).requires_grad]
    if frozen:
        raise ConfigError(
            f"`{algorithm}` changes weights while they are trained, but these layers are frozen (`requires_grad` is "
            f"False): {', '.join(map(repr, frozen))}. Train them, or name them in `ignored_scopes`"
        )
