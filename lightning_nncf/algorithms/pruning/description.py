"""What filter pruning did to a network: numbers for statistics, rows for tables, and lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_nncf.algorithms.pruning.ranking import Ranking
from lightning_nncf.algorithms.pruning.removal import kept_entries, left_of
from lightning_nncf.dependencies.groups import Structure

__all__ = ["observe", "rows", "summary"]


def observe(ranking: Ranking, masks: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return filters per layer, and costs, before and after removal of what is masked.

    Args:
        ranking: Groups and costs.
        masks: For each group which units stay, [units] of bool.
    """
    kept = kept_entries(ranking.structure, masks)
    filters = [(member.name, member.dim) for group in ranking.structure.groups for member in group.filters]
    now, full = ranking.cost(masks), ranking.full
    return {
        "filters_left": torch.tensor([int(kept[key].sum()) for key in filters]),
        "filters_before": torch.tensor([kept[key].size for key in filters]),
        "flops_left": torch.tensor([now.flops, full.flops], dtype=torch.float64),
        "parameters_left": torch.tensor([now.parameters, full.parameters], dtype=torch.float64),
    }


def rows(ranking: Ranking, masks: Sequence[Tensor], present: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Return one row per convolution and linear layer: cost before, as computed now, and once masks are removed.

    Args:
        ranking: Groups and costs.
        masks: For each group which units stay, [units] of bool.
        present: For each group which units the network physically has.
    """
    structure = ranking.structure
    sizes = {layer.weight: layer.shape for layer in ranking.costs}
    dims = {member.name: member.dim for group in structure.groups for member in group.filters}
    after, now = (left_of(structure, each, sizes) for each in (masks, present))
    found = []
    for layer in ranking.costs:
        dim = dims.get(layer.weight, 0)
        left = after(layer.weight, dim)
        full, computed, pruned = layer.cost(), layer.cost(now), layer.cost(after)
        found.append(
            {
                "place": layer.address,
                "kind": "filters",
                "parameter": layer.weight,
                "shape": "x".join(map(str, layer.shape)),
                "filters": layer.shape[dim],
                "filters_left": left,
                "pruning_ratio": 1 - left / layer.shape[dim],
                "flops": full.flops,
                "flops_now": computed.flops,
                "flops_left": pruned.flops,
                "parameters": full.parameters,
                "parameters_now": computed.parameters,
                "parameters_left": pruned.parameters,
                "reason": structure.excluded.get(layer.weight, ""),
            }
        )
    return found


def summary(structure: Structure) -> list[str]:
    """Say what can be pruned, and what cannot and why."""
    layers = sum(len(group.filters) for group in structure.groups)
    units = sum(group.units for group in structure.groups)
    lines = [f"Filter pruning: {units:,} independent filters in {len(structure.groups)} groups of {layers} layers"]
    lines += [f"Filter pruning leaves {name} whole: {reason}" for name, reason in structure.excluded.items()]
    return lines
