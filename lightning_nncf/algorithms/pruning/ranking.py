"""Which units of a network go at a level: importance, targets and what is said when a target cannot be met."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lightning_nncf.algorithms.pruning.config import PruningParams
from lightning_nncf.algorithms.pruning.functional import IMPORTANCE
from lightning_nncf.algorithms.pruning.masks import filters_of, importance_of
from lightning_nncf.algorithms.pruning.removal import left_of
from lightning_nncf.algorithms.pruning.selection import bisect_rate, global_masks, greedy_masks, group_mask
from lightning_nncf.dependencies.groups import Group, Structure
from lightning_nncf.errors import ConfigError
from lightning_nncf.graph.flops import Cost, LayerCost, total

__all__ = ["Coefficients", "Ranking"]

Coefficients = Mapping[str, tuple[float, float]]
"""Weight to the scale and shift that make importance comparable between layers."""
_MULTIPLE = 8
"""The number of channels left is a multiple of this, unless all groups are ranked together."""
_HIGHEST = 0.99
_STEP = 1e-3


class Ranking:
    """Chooses masks.

    Args:
        structure: The groups.
        costs: Cost of the layers.
        params: Settings.
    """

    def __init__(self, structure: Structure, costs: Sequence[LayerCost], params: PruningParams) -> None:
        self.structure = structure
        self.costs = costs
        self.params = params
        self.coefficients: Coefficients = {}
        self._sizes = {layer.weight: layer.shape for layer in costs}
        self.full = total(costs)

    def cost(self, masks: Sequence[Tensor]) -> Cost:
        """Return the cost of the network with units removed."""
        return total(self.costs, left_of(self.structure, masks, self._sizes))

    def multiple(self, group: Group) -> int:
        """Return of what the number of units left must be a multiple, for channels in multiples of 8."""
        return _MULTIPLE // math.gcd(_MULTIPLE, group.width)

    def importance(self, parameters: dict[str, Tensor], present: Sequence[Tensor]) -> list[Tensor]:
        """Return the importance of each unit of each group; units that were removed have the least."""
        normalized = self.params.all_weights and not self.coefficients
        return [
            importance_of(
                group,
                parameters,
                self.params.filter_importance,
                left,
                normalized=normalized,
                coefficients=self.coefficients,
            )
            for group, left in zip(self.structure.groups, present, strict=True)
        ]

    def spreads(self, parameters: Mapping[str, Tensor], present: Sequence[Tensor]) -> dict[str, float]:
        """Return for each weight the standard deviation of the importance of its filters."""
        found = {}
        for group, left in zip(self.structure.groups, present, strict=True):
            for member in group.filters:
                rows, _ = filters_of(parameters[member.name], member, left)
                found[member.name] = float(IMPORTANCE[self.params.filter_importance](rows).std(correction=0))
        return found

    def masks(self, level: float, importance: Sequence[Tensor]) -> list[Tensor]:
        """Return for each group which units stay at a level of whatever the target is about.

        Raises:
            ConfigError: The level cannot be met, or a group would lose all its units.
        """
        if level <= 0:
            return [torch.ones(group.units, dtype=torch.bool) for group in self.structure.groups]
        if self.params.pruning_flops_target is not None:
            return self.masks_for_flops(level, importance)
        return self.at_rate(level, importance)

    def masks_for_flops(self, level: float, importance: Sequence[Tensor]) -> list[Tensor]:
        """Remove just enough units that a share of the FLOPs is gone.

        Raises:
            ConfigError: Too many FLOPs remain whatever is removed.
        """
        limit = (1 - level) * self.full.flops

        def met(masks: Sequence[Tensor]) -> bool:
            return self.cost(masks).flops <= limit

        if self.params.all_weights:
            found = greedy_masks(importance, met)
            if found is not None:
                return found
        else:
            rate = bisect_rate(lambda rate: met(self._uniform(rate, importance)), _HIGHEST, tolerance=_STEP)
            if rate is not None:
                return self._refined(rate, importance, met)
        raise ConfigError(self._unreachable(level, importance))

    def at_rate(self, rate: float, importance: Sequence[Tensor]) -> list[Tensor]:
        """Remove a share of the units: of each group, or of all together.

        Raises:
            ConfigError: A group would lose all its units.
        """
        if not self.params.all_weights:
            return self._uniform(rate, importance)
        masks = global_masks(importance, rate)
        empty = [group.name for group, mask in zip(self.structure.groups, masks, strict=True) if not bool(mask.any())]
        if empty:
            raise ConfigError(
                f"pruning {rate:.0%} of all filters by one ranking removes every filter of {', '.join(empty)}; lower "
                "`pruning_target`, add these layers to `ignored_scopes`, or set `all_weights: false`"
            )
        return masks

    def _uniform(self, rate: float, importance: Sequence[Tensor]) -> list[Tensor]:
        return [
            group_mask(scores, rate, self.multiple(group))
            for group, scores in zip(self.structure.groups, importance, strict=True)
        ]

    def _refined(
        self, rate: float, importance: Sequence[Tensor], met: Callable[[Sequence[Tensor]], bool]
    ) -> list[Tensor]:
        """Go to a rate group by group, the largest first, until the target is met.

        With numbers of channels in multiples of 8, several groups lose their next 8 at the same rate.
        """
        masks = self._uniform(max(rate - _STEP, 0.0), importance)
        further = self._uniform(rate, importance)
        for index in sorted(range(len(masks)), key=lambda each: -masks[each].numel()):
            if met(masks):
                break
            masks[index] = further[index]
        return masks

    def _unreachable(self, level: float, importance: Sequence[Tensor]) -> str:
        never: Callable[[list[Tensor]], bool] = lambda masks: all(  # noqa: E731
            int((~mask).sum()) >= math.floor(0.9 * mask.numel()) for mask in masks
        )
        most = greedy_masks(importance, never) if self.params.all_weights else self._uniform(_HIGHEST, importance)
        left = self.cost(most).flops / self.full.flops if most is not None else 1.0
        kept = "; ".join(f"{name}: {reason}" for name, reason in list(self.structure.excluded.items())[:10])
        return (
            f"`pruning_flops_target`: {level:.1%} of the FLOPs cannot be removed, at most {1 - left:.1%} can"
            + (f"; these layers stay whole: {kept}" if kept else "")
            + ". Lower the target, or allow more layers (`prune_downsample_convs`, `grouping: full`)"
        )
