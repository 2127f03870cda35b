"""Tensors of modules inserted in a network that must be sliced with it: scales per channel, masks, thresholds."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_nncf.dependencies.places import place_of
from lightning_nncf.hooks.insertion import inserted

__all__ = ["beside_weights", "channelwise"]


def beside_weights(network: nn.Module) -> dict[str, list[Tensor]]:
    """Return for each parameter the tensors of modules inserted at it that have its rank, as scales per channel do."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found: dict[str, list[Tensor]] = {}
    for site, _, module in inserted(network):
        if site.kind == "weight":
            parameter = site.parameter_of(network)
            fitting = [tensor for tensor in _tensors(module) if tensor.ndim == parameter.ndim]
            found.setdefault(names[id(parameter)], []).extend(fitting)
    return found


def channelwise(network: nn.Module) -> dict[str, list[Tensor]]:
    """Return for each place between layers, see `place_of`, the tensors of modules inserted there that have axes."""
    found: dict[str, list[Tensor]] = {}
    for site, _, module in inserted(network):
        fitting = [tensor for tensor in _tensors(module) if tensor.ndim > 1 and tensor.numel() > 1]
        if site.kind != "weight" and fitting:
            found.setdefault(place_of(site), []).extend(fitting)
    return found


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
