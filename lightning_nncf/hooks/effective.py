"""Writes the weights that a compressed network computes with into its parameters, where they outlive its hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_nncf.hooks.insertion import inserted, strip
from lightning_nncf.hooks.slots import Slot

__all__ = ["acting_on_activations", "strip_effective"]

_PARAMETRIZATIONS = "parametrizations"
_SAME = 1e-4
"""Largest relative error with which a parametrization may give back what was written through it."""


def strip_effective(network: nn.Module) -> dict[str, str]:
    """Take all inserted modules out, and leave the weights that the network computed with in evaluation mode.

    At each weight all modules are applied in their order, and the result is written into the parameter in place: it
    stays the same object, with its dtype and device. A weight that a parametrization makes is written through the
    parametrization.

    Args:
        network: The network.

    Returns:
        Names of the weights that could not be written as they were, with the reasons.

    >>> from lightning_nncf.hooks.insertion import HookSite, insert
    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> site = HookSite(kind="weight", module="0", holder="0", slot="weight", frame="0", parameter="weight")
    >>> insert(net, site, nn.ReLU(), algorithm="demo", priority=1)
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.tensor([[2.0, -3.0]]))
    >>> strip_effective(net), net[0].weight.tolist()
    ({}, [[2.0, 0.0]])
    """
    with torch.no_grad(), _evaluating(network):
        made = [each for each in _made_weights(network) if each.compressed]
        for each in made:
            each.value = getattr(each.module, each.name).clone()
        left = _write_parameters(network)
        strip(network)
        for each in made:
            if not each.write():
                left[each.key] = (
                    "its parametrization cannot give the compressed values, so it keeps its own; call "
                    f"`torch.nn.utils.parametrize.remove_parametrizations` for {each.name!r} before stripping"
                )
    return left


def acting_on_activations(network: nn.Module) -> Counter[str]:
    """Count for each algorithm the inserted modules that act on activations, which cannot outlive the hooks."""
    weights = [each for each in _made_weights(network) if each.compressed]
    below = {id(module) for each in weights for module in each.source.modules()}
    seen: dict[int, str] = {}
    for site, algorithm, module in inserted(network):
        on_weight = site.kind in ("weight", "attribute") or id(module) in below
        if not on_weight and getattr(module, "enabled", True):
            seen[id(module)] = algorithm
    return Counter(seen.values())


def _write_parameters(network: nn.Module) -> dict[str, str]:
    """Write the value of each hooked parameter; one that is read in several places is written once."""
    read: dict[int, list[Slot]] = {}
    for slot in network.modules():
        if isinstance(slot, Slot) and slot.site.kind == "weight":
            read.setdefault(id(slot.site.parameter_of(network)), []).append(slot)
    left = {}
    for first, *others in read.values():
        parameter = first.site.parameter_of(network)
        value = first(parameter)
        if any(not torch.equal(other(parameter), value) for other in others if other.chain != first.chain):
            places = ", ".join(repr(slot.site.key) for slot in (first, *others))
            left[f"{first.site.holder}.{first.site.parameter}"] = (
                f"it has other values at each of {places}, and one parameter cannot hold them all; it got the first"
            )
        if value is not parameter:
            parameter.copy_(value)
    return left


@dataclass
class _MadeWeight:
    """A weight that a parametrization makes from other parameters."""

    path: str
    module: nn.Module
    name: str
    value: Tensor | None = None

    @property
    def key(self) -> str:
        return f"{self.path}.{self.name}" if self.path else self.name

    @property
    def source(self) -> nn.Module:
        parametrizations: nn.ModuleDict = self.module.get_submodule(_PARAMETRIZATIONS)  # type: ignore[assignment]
        return parametrizations[self.name]

    @property
    def compressed(self) -> bool:
        return any(isinstance(module, Slot) for module in self.source.modules())

    def write(self) -> bool:
        """Set the weight, unless it would not come out of the parametrization as it went in."""
        value = self.value
        assert value is not None
        earlier = {name: tensor.clone() for name, tensor in self.source.state_dict().items()}
        try:
            setattr(self.module, self.name, value)
            error = (getattr(self.module, self.name) - value).abs().max()
            written = bool(error <= _SAME * value.abs().max())
        except (NotImplementedError, RuntimeError, ValueError):
            written = False
        if not written:
            self.source.load_state_dict(earlier)
        return written


def _made_weights(network: nn.Module) -> Iterator[_MadeWeight]:
    for path, module in network.named_modules():
        if parametrize.is_parametrized(module):
            for name in module.get_submodule(_PARAMETRIZATIONS)._modules:
                yield _MadeWeight(path, module, name)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Let the inserted modules run in evaluation mode."""
    modules = {id(each): each for _, _, module in inserted(network) for each in module.modules()}.values()
    flags = [(module, module.training) for module in modules]
    for module, _ in flags:
        module.training = False
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training
