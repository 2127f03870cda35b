"""Masks of the groups at work on the weights of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nncf.algorithms.pruning.functional import IMPORTANCE, Importance, group_importance
from lightning_nncf.dependencies.groups import Group, Member, Structure

__all__ = ["WeightMasks", "filters_of", "importance_of"]


class WeightMasks:
    """Masks written into the weights in place: filters, their biases and normalizations.

    Args:
        network: The network.
        structure: Its groups.
        norms: Whether scale and shift of normalizations are masked.
        gradients: Whether gradients are masked, so that masked weights gather no momentum.
    """

    def __init__(self, network: nn.Module, structure: Structure, *, norms: bool, gradients: bool) -> None:
        self._parameters = dict(network.named_parameters(remove_duplicate=False))
        self._roles = ("filter", "follower", "norm") if norms else ("filter", "follower")
        self.structure = structure
        self._masks: dict[str, list[Tensor]] = {}
        self._handles: list[Any] = []
        self._gradients = gradients
        self._listen()

    def _listen(self) -> None:
        """Mask gradients from now on, if asked to."""
        if not self._gradients:
            return
        names = {member.name for group in self.structure.groups for member in group.members if self._masked(member)}
        for name in sorted(names):
            parameter: Any = self._parameters[name]
            if parameter.requires_grad:
                self._handles.append(parameter.register_hook(_MaskGradient(self._masks, name)))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the hooks, which PyTorch does not copy with a parameter."""
        return {**self.__dict__, "_handles": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Put the hooks on the parameters of the copy."""
        self.__dict__.update(state)
        self._listen()

    def _masked(self, member: Member) -> bool:
        return member.role in self._roles and member.name in self._parameters

    def set(self, masks: Sequence[Tensor], present: Sequence[Tensor]) -> None:
        """Set the masks and apply them.

        Args:
            masks: For each group which units stay, [units] of bool.
            present: For each group which units the network physically has.
        """
        self._masks.clear()
        sizes = _present_positions(self.structure, present)
        found: dict[tuple[str, int], Tensor] = {}
        for group, mask in zip(self.structure.groups, masks, strict=True):
            if bool(mask.all()):
                continue
            for member in group.members:
                if self._masked(member):
                    full = found.setdefault((member.name, member.dim), torch.ones(member.size, dtype=torch.bool))
                    full[torch.from_numpy(member.positions)] = mask[torch.from_numpy(member.units)]
        for (name, dim), full in found.items():
            parameter = self._parameters[name]
            left = full[sizes[name, dim]]
            shape = [-1 if axis == dim else 1 for axis in range(parameter.ndim)]
            if not bool(left.all()):
                mask = left.reshape(shape).to(parameter.device, parameter.dtype)
                self._masks.setdefault(name, []).append(mask)
        self.apply()

    @torch.no_grad()
    def apply(self, network: nn.Module | None = None) -> None:
        """Zero masked weights again, wherever an optimizer moved them.

        Args:
            network: A copy of the network, whose weights to mask instead.
        """
        parameters = self._parameters if network is None else dict(network.named_parameters(remove_duplicate=False))
        for name, masks in self._masks.items():
            parameter = parameters[name]
            for mask in masks:
                parameter.mul_(mask.to(parameter.device))

    def remove(self) -> None:
        """Take the hooks off the gradients."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class _MaskGradient:
    """Hook of a parameter's gradient; a class, so that it can be pickled."""

    def __init__(self, masks: dict[str, list[Tensor]], name: str) -> None:
        self.masks = masks
        self.name = name

    def __call__(self, gradient: Tensor) -> Tensor:
        for mask in self.masks.get(self.name, ()):
            gradient = gradient * mask.to(gradient.device, gradient.dtype)
        return gradient


def filters_of(parameter: Tensor, member: Member, present: Tensor) -> tuple[Tensor, Tensor]:
    """Return the filters of a member as rows, and the unit of each.

    Args:
        parameter: The weight, perhaps shrunk.
        member: The member.
        present: Which units of its group the weight still has.
    """
    units = torch.from_numpy(member.units)
    # A group owns all filters of its weights, so those left are in the old order.
    return parameter.detach().movedim(member.dim, 0).flatten(1).float(), units[present[units]]


def importance_of(
    group: Group,
    parameters: Mapping[str, Tensor],
    kind: Importance,
    present: Tensor,
    *,
    normalized: bool = False,
    coefficients: Mapping[str, tuple[float, float]] | None = None,
) -> Tensor:
    """Return the importance of each unit of a group, [units]; units that were removed have none.

    Args:
        group: The group.
        parameters: Parameters by name.
        kind: Measure of importance.
        present: Which units the network physically has.
        normalized: Whether each weight is scaled to an L2 norm of 1 before, to compare groups.
        coefficients: Weight to scale and shift of its importance.
    """
    scores, units = [], []
    for member in group.filters:
        rows, owners = filters_of(parameters[member.name], member, present)
        if normalized:
            rows = rows / rows.norm().clamp(min=torch.finfo(rows.dtype).tiny)
        scale, shift = (coefficients or {}).get(member.name, (1.0, 0.0))
        scores.append(scale * IMPORTANCE[kind](rows).cpu() + shift)
        units.append(owners)
    total = group_importance(scores, units, group.units)
    return torch.where(present, total, torch.full_like(total, -torch.inf))


def _present_positions(structure: Structure, present: Sequence[Tensor]) -> dict[tuple[str, int], Tensor]:
    """Return for each sliced dimension which of its full entries are still there."""
    found: dict[tuple[str, int], Tensor] = {}
    for group, mask in zip(structure.groups, present, strict=True):
        for member in group.members:
            full = found.setdefault((member.name, member.dim), torch.ones(member.size, dtype=torch.bool))
            full[torch.from_numpy(member.positions)] = mask[torch.from_numpy(member.units)]
    return found
