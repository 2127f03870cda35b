"""Structures that several linear layers share, such as attention heads, and masks that agree on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_nncf.dependencies.groups import Group, make_structure
from lightning_nncf.dependencies.propagation import propagate
from lightning_nncf.graph.graph import NetworkGraph

__all__ = ["agreed_masks", "shared_structures"]


def shared_structures(network: nn.Module, graph: NetworkGraph, masked: Collection[str]) -> tuple[Group, ...]:
    """Find rows and columns of masked weights that can only be removed together.

    Found in the graph, whatever the class of the network: of a transformer the heads, with their rows of query, key
    and value and their columns of the projection behind them, and the hidden channels between two linear layers.

    Args:
        network: The network.
        graph: Its captured graph.
        masked: Names of the weights with masks.

    Returns:
        Groups all of whose weights have masks, without biases and other vectors.
    """
    ranks = {name: parameter.dim() for name, parameter in network.named_parameters(remove_duplicate=False)}
    found = []
    for group in make_structure(propagate(graph, network)).groups:
        weights = tuple(member for member in group.members if ranks.get(member.name, 0) > 1)
        if all(member.name in masked for member in weights):
            found.append(replace(group, members=weights))
    return tuple(found)


def agreed_masks(masks: Mapping[str, Tensor], groups: Sequence[Group]) -> dict[str, Tensor]:
    """Return masks that drop a structure in all of its layers or in none.

    A structure is dropped if no layer keeps any of its weights; all others are kept whole.

    Args:
        masks: Boolean masks ``[rows, columns]`` by name of the weight; true keeps.
        groups: Groups of `shared_structures`.

    Returns:
        New masks of the weights that the groups concern.

    >>> import numpy as np
    >>> from lightning_nncf.dependencies.groups import Member
    >>> ids = np.arange(2)
    >>> up, down = (Member(name, dim, 2, "filter", ids, ids) for name, dim in (("up", 0), ("down", 1)))
    >>> masks = {"up": torch.tensor([[True, False], [False, False]]), "down": torch.tensor([[False, False]])}
    >>> agreed_masks(masks, [Group("up", 2, (up, down))])
    {'up': tensor([[ True,  True],
            [False, False]]), 'down': tensor([[ True, False]])}
    """
    agreed: dict[str, Tensor] = {}
    for group in groups:
        device = masks[group.members[0].name].device
        alive = torch.zeros(group.units, dtype=torch.bool, device=device)
        places = [
            (member, torch.as_tensor(member.positions, device=device), torch.as_tensor(member.units, device=device))
            for member in group.members
        ]
        for member, positions, units in places:
            alive[units[masks[member.name].any(dim=1 - member.dim)[positions]]] = True
        for member, positions, units in places:
            mask = agreed.setdefault(member.name, torch.ones_like(masks[member.name]))
            mask.movedim(member.dim, 0)[positions[~alive[units]]] = False
    return agreed
