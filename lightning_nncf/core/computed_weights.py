"""Weights that are computed from parameters while the network runs, and so are no parameters themselves.

Hooks of the old ``torch.nn.utils`` (``weight_norm``, ``spectral_norm``, ``prune``) and of users set them before each
forward, ``torch.nn.utils.parametrize`` computes them when they are read, and a forward may do so itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lightning_nncf.errors import ConfigError
from lightning_nncf.graph.graph import INPUT, NetworkGraph, OpNode

__all__ = ["ComputedWeight", "computed_weights", "refuse_computed"]

_CURES: tuple[tuple[type, str], ...] = (
    (WeightNorm, "torch.nn.utils.remove_weight_norm({module})"),
    (SpectralNorm, "torch.nn.utils.remove_spectral_norm({module})"),
    (BasePruningMethod, "torch.nn.utils.prune.remove({module}, {name!r})"),
)
_PARAMETRIZATIONS = ".parametrizations."


@dataclass(frozen=True, kw_only=True)
class ComputedWeight:
    """A weight that an op takes and that is computed from parameters.

    Args:
        address: Address of the op.
        parameters: Names of the parameters.
        cause: What computes it, for messages; empty if the forward itself does.
        cure: What makes it a parameter again, for messages.
    """

    address: str
    parameters: tuple[str, ...]
    cause: str
    cure: str


def computed_weights(
    network: nn.Module, graph: NetworkGraph, functions: Collection[str], inside: Callable[[str], bool]
) -> Iterator[ComputedWeight]:
    """Yield the weights of ops that are computed from parameters alone, not from inputs of the network.

    Args:
        network: The network.
        graph: Its captured graph.
        functions: Names of functions that take a weight as their second tensor, as ``conv2d`` does.
        inside: Whether to look at the op at an address.
    """
    for op in graph.ops():
        if op.function not in functions or 1 in op.parameters or len(op.inputs) < 2 or not inside(op.address):
            continue
        weight = op.inputs[1]
        sources = _sources(graph, op)
        parameters = tuple(dict.fromkeys(name for source in sources for name in source.parameters.values()))
        if len(weight.shape) > 1 and parameters and all(source.function != INPUT for source in sources):
            cause, cure = _cause(network, op, sources, parameters)
            yield ComputedWeight(address=op.address, parameters=parameters, cause=cause, cure=cure)


def refuse_computed(
    network: nn.Module, graph: NetworkGraph, functions: Collection[str], inside: Callable[[str], bool], algorithm: str
) -> list[str]:
    """Refuse weights that something else than their module's forward computes, for algorithms that change parameters.

    Args:
        network: The network.
        graph: Its captured graph.
        functions: Names of the functions whose weights the algorithm changes.
        inside: Whether the op at an address is in the algorithm's scopes.
        algorithm: Name of the algorithm.

    Returns:
        Addresses of the ops whose weights the forward computes, which the algorithm has to leave as they are.

    Raises:
        ConfigError: There are such weights; the message names what computes them, and what ends that.
    """
    found = list(computed_weights(network, graph, functions, inside))
    refused = [weight for weight in found if weight.cause]
    if refused:
        named = "; ".join(f"{weight.address!r} by {weight.cause}: {weight.cure}" for weight in refused[:5])
        more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise ConfigError(
            f"`{algorithm}` changes parameters, but the weights of {len(refused)} layers are computed from parameters "
            f"before each use, which would undo it: {named}{more}. Do so before compression, or name the layers in "
            "`ignored_scopes`"
        )
    return [weight.address for weight in found]


def _sources(graph: NetworkGraph, op: OpNode) -> list[OpNode]:
    """Return all ops that the weight of an op comes from."""
    waiting = [edge.source for edge in graph.inputs_of(op.address) if edge.port == 1]
    seen: dict[str, None] = {}
    while waiting:
        address = waiting.pop()
        if address not in seen:
            seen[address] = None
            waiting.extend(edge.source for edge in graph.inputs_of(address))
    return [graph[address] for address in seen]


def _cause(network: nn.Module, op: OpNode, sources: list[OpNode], parameters: tuple[str, ...]) -> tuple[str, str]:
    for name in parameters:
        if _PARAMETRIZATIONS in f".{name}":
            path, _, rest = f".{name}".partition(_PARAMETRIZATIONS)
            owner, tensor = network.get_submodule(path[1:]), rest.partition(".")[0]
            kinds = ", ".join(type(each).__name__ for each in owner.parametrizations[tensor])  # type: ignore[index]
            remove = f"torch.nn.utils.parametrize.remove_parametrizations({path[1:] or 'the network'}, {tensor!r})"
            return f"the parametrization {kinds} of {path[1:]!r}", remove
    hooked = next((source for source in sources if source.by_hook), None)
    if hooked is None:
        return "", ""
    hooks = list(network.get_submodule(hooked.module)._forward_pre_hooks.values())
    module = hooked.module or "the network"
    for hook in hooks:
        for kind, cure in _CURES:
            if isinstance(hook, kind):
                tensor = str(getattr(hook, "name", None) or getattr(hook, "_tensor_name", "weight"))
                return f"the forward pre-hook {type(hook).__name__} of {hooked.module!r}", cure.format(
                    module=module, name=tensor
                )
    names = ", ".join(getattr(hook, "__qualname__", type(hook).__name__) for hook in hooks)
    return (
        f"a forward pre-hook of {hooked.module!r} ({names})",
        "take the hook off and keep its result as the parameter",
    )
