"""Tries removal on a copy, and excludes groups without which the network does not run as it did masked.

A graph tells shapes, but not whether a size is written down in the network's code, as in ``x.view(-1, 512)``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_nncf.algorithms.pruning.masks import WeightMasks
from lightning_nncf.algorithms.pruning.removal import shrink
from lightning_nncf.dependencies.groups import Group, Structure

__all__ = ["rehearse"]

_TOLERANCE = 1e-2


def rehearse(
    network: nn.Module, structure: Structure, inputs: tuple[tuple[Any, ...], Mapping[str, Any]] | None
) -> Structure:
    """Remove half of every group from a copy of the network, run it, and exclude the groups that break it.

    Args:
        network: The network; it is not touched.
        structure: Its groups.
        inputs: Positional and keyword arguments of a call; without them nothing is tried.

    Returns:
        The structure without the groups that cannot be removed; these are excluded with the reason.
    """
    if inputs is None or not structure.groups or _run(copy.deepcopy(network), inputs) is None:
        return structure
    broken = _broken(network, structure, list(structure.groups), inputs)
    if not broken:
        return structure
    excluded = dict(structure.excluded)
    for group, problem in broken:
        for member in group.filters:
            excluded[member.name] = f"without some of its filters the network fails: {problem}"
    gone = {id(group) for group, _ in broken}
    return replace(
        structure, groups=tuple(group for group in structure.groups if id(group) not in gone), excluded=excluded
    )


def _broken(
    network: nn.Module, structure: Structure, groups: Sequence[Group], inputs: tuple[tuple[Any, ...], Mapping[str, Any]]
) -> list[tuple[Group, str]]:
    """Return the groups that break the network, found by halving."""
    problem = _try(network, replace(structure, groups=tuple(groups)), inputs)
    if problem is None:
        return []
    if len(groups) == 1:
        return [(groups[0], problem)]
    middle = len(groups) // 2
    found = [each for half in (groups[:middle], groups[middle:]) for each in _broken(network, structure, half, inputs)]
    # Halves that only fail together cannot be told apart.
    return found or [(group, problem) for group in groups]


def _try(network: nn.Module, structure: Structure, inputs: tuple[tuple[Any, ...], Mapping[str, Any]]) -> str | None:
    """Return what goes wrong when half of the units are removed, if something does."""
    masks = [torch.arange(group.units) % 2 == 0 for group in structure.groups]
    masked = copy.deepcopy(network)
    WeightMasks(masked, structure, norms=True, gradients=False).set(masks, [torch.ones_like(mask) for mask in masks])
    small = copy.deepcopy(masked)
    expected = _run(masked, inputs)
    try:
        shrink(small, structure, masks)
        got = _call(small, inputs)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}"
    if expected is None or [each.shape for each in expected] != [each.shape for each in got]:
        return None if expected is None else "its outputs have other shapes"
    for a, b in zip(expected, got, strict=True):
        scale = max(1.0, float(a.abs().max())) if a.numel() else 1.0
        if a.numel() and bool(torch.isfinite(a).all()) and float((a - b).abs().max()) > _TOLERANCE * scale:
            return "its outputs are not those of the masked network"
    return None


def _run(network: nn.Module, inputs: tuple[tuple[Any, ...], Mapping[str, Any]]) -> list[Tensor] | None:
    """Run a network; return nothing if it fails."""
    try:
        return _call(network, inputs)
    except Exception:
        return None


def _call(network: nn.Module, inputs: tuple[tuple[Any, ...], Mapping[str, Any]]) -> list[Tensor]:
    args, kwargs = inputs
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        output = network.eval()(*args, **kwargs)
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
