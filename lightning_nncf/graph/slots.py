"""The modules inserted at one place, and how they are applied to tensors inside nested values."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from lightning_nncf.graph.sites import HookSite

__all__ = ["Change", "SharedChange", "Slot", "is_heard"]


class Slot(nn.Module):
    """The modules inserted at one place, applied one after the other in ascending priority.

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
        position = sum(known <= (priority, algorithm) for known in self.order)
        self.order.insert(position, (priority, algorithm))
        self.chain.insert(position, module)
        if register:
            self.add_module(algorithm, module)

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
