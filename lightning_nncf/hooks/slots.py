"""The modules inserted at one place, and how they are applied to tensors inside nested values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from lightning_nncf.hooks.hook_site import HookSite

__all__ = ["PREFIX", "Change", "SharedChange", "Slot", "is_heard", "is_inserted"]

PREFIX = "lnncf_"
"""How the names of slots begin."""
_BELOW = f".{PREFIX}"

_LEAST_BYTES = torch.float32.itemsize


class Slot(nn.Module):
    """The modules inserted at one place, applied one after the other in ascending priority.

    What is inserted keeps its values in float32 or float64 where the network is converted to a half type: a range or a
    score moves by steps that a half type rounds away.

    Args:
        site: The place.
    """

    def __init__(self, site: HookSite) -> None:
        super().__init__()
        self.site = site
        self.order: list[tuple[int, str]] = []
        # Not registered: a module shared by several places is registered at the first of them only.
        self.chain: list[nn.Module] = []

    def add(self, module: nn.Module, *, algorithm: str, priority: int, register: bool) -> None:
        """Put a module at its place in the order."""
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.element_size() < _LEAST_BYTES:
                parameter.data = parameter.data.float()  # made while a half type was torch's default
        position = sum(known <= (priority, algorithm) for known in self.order)
        self.order.insert(position, (priority, algorithm))
        self.chain.insert(position, module)
        if register:
            self.add_module(algorithm, module)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], *args: Any, **kwargs: Any) -> Slot:
        """Convert or move the modules, as `torch.nn.Module.to` and the like ask for."""

        def convert(tensor: torch.Tensor) -> torch.Tensor:
            converted = fn(tensor)
            if not tensor.is_floating_point() or converted.element_size() >= _LEAST_BYTES:
                return converted
            return tensor.to(converted.device, torch.float32)

        super()._apply(convert, *args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Apply all modules, past what a call costs while nobody listens to it."""
        if is_heard(self, *self.chain):
            listened: torch.Tensor = super().__call__(tensor)
            return listened
        for module in self.chain:
            tensor = module.forward(tensor)
        return tensor

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Apply all modules."""
        for module in self.chain:
            tensor = module(tensor)
        return tensor


def is_heard(*modules: nn.Module) -> bool:
    """Return whether somebody listens to the calls of one of these modules."""
    for module in modules:
        if module._forward_pre_hooks or module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
            return True
    return False


def is_inserted(name: str, begin: int = 0) -> bool:
    """Return whether something below a module is a slot or in one.

    Args:
        name: Its name, or that of a parameter or buffer.
        begin: Where its name below the module begins.

    >>> [is_inserted(name) for name in ("layer.weight", "layer.lnncf_weight.mask", "lnncf_in.quantization.scale")]
    [False, True, True]
    """
    return name.startswith(PREFIX, begin) or name.find(_BELOW, begin) >= 0


class Change:
    """Applies slots by position."""

    def __init__(self, slots: Mapping[int, Slot]) -> None:
        self.slots = slots

    def __call__(self, position: int, tensor: torch.Tensor) -> torch.Tensor:
        """Return the replacement of a tensor, itself where no slot has its position."""
        slot = self.slots.get(position)
        if slot is None:
            return tensor
        replaced: torch.Tensor = slot(tensor)
        return replaced


class SharedChange:
    """Applies slots by position; one tensor given twice stays one tensor when the same modules see it."""

    def __init__(self, slots: Mapping[int, Slot]) -> None:
        self.slots = slots
        self.done: list[tuple[torch.Tensor, list[nn.Module], torch.Tensor]] = []

    def __call__(self, position: int, tensor: torch.Tensor) -> torch.Tensor:
        """Return the replacement of a tensor, itself where no slot has its position."""
        slot = self.slots.get(position)
        if slot is None:
            return tensor
        for seen, chain, replaced in self.done:
            if seen is tensor and len(chain) == len(slot.chain) and all(map(_same, chain, slot.chain)):
                return replaced
        changed: torch.Tensor = slot(tensor)
        self.done.append((tensor, slot.chain, changed))
        return changed


def _same(one: object, other: object) -> bool:
    return one is other
