"""Filter pruning: masks that follow a schedule, and networks that are physically smaller in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from lightning_nncf.algorithms.pruning import description
from lightning_nncf.algorithms.pruning.analysis import analyse
from lightning_nncf.algorithms.pruning.config import FilterPruningConfig
from lightning_nncf.algorithms.pruning.insertions import channelwise
from lightning_nncf.algorithms.pruning.masks import WeightMasks
from lightning_nncf.algorithms.pruning.measured import learn_ranking, rate_for_latency
from lightning_nncf.algorithms.pruning.ranking import Ranking
from lightning_nncf.algorithms.pruning.rehearsal import rehearse
from lightning_nncf.algorithms.pruning.removal import shrink
from lightning_nncf.algorithms.pruning.scheduler import PruningScheduler
from lightning_nncf.algorithms.pruning.selection import pruned_count
from lightning_nncf.calibration import CalibrationData, adapt_batch_norm
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.inputs import Arguments
from lightning_nncf.core.registry import register
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.dependencies.groups import Structure
from lightning_nncf.dependencies.indices import pack, unpack
from lightning_nncf.errors import ConfigError
from lightning_nncf.graph.flops import LayerCost, layer_costs
from lightning_nncf.graph.graph import NetworkGraph
from lightning_nncf.statistics.pruning import FlopsLeft, PrunedFilters

__all__ = ["FilterPruning"]


@register(FilterPruningConfig)
class FilterPruning(Algorithm):
    """Removes filters: masked in training, physically gone after `shrink_at` or in what is exported.

    Args:
        config: Settings of pruning.
        root: The whole configuration.
    """

    name: ClassVar[str] = "filter_pruning"
    priority: ClassVar[int] = 2

    config: FilterPruningConfig
    scheduler: PruningScheduler

    def __init__(self, config: FilterPruningConfig, root: NNCFConfig) -> None:
        super().__init__(config, root)
        params = config.params
        self.scheduler = PruningScheduler(
            params.schedule,
            config.pruning_init,
            params.target,
            warmup=params.num_init_steps,
            steps=params.pruning_steps,
        )
        self.scheduler.attach(self._on_level, self._on_freeze, self._apply)
        self.groups = Structure(groups=())
        self.masks: list[Tensor] = []
        """For each group which units stay, [units] of bool."""
        self.present: list[Tensor] = []
        """For each group which units the network physically has."""
        self.frozen = False
        self.rate_of_target: float | None = None
        """Share of the filters that goes at the target level, when that was found by measuring latencies."""
        self._example: Arguments | None = None
        self._network: nn.Module | None = None
        self._optimizers: tuple[Optimizer, ...] = ()

    # Structure --------------------------------------------------------------------------------------------------------

    def build(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Find the groups and check that the target can be met.

        Raises:
            ConfigError: Nothing can be pruned, a hook computes the weight of a layer, or the target cannot be met.
        """
        groups = rehearse(network, analyse(network, graph, self.config, self.root), graph.example_inputs)
        if not groups.groups:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in groups.excluded.items())
            raise ConfigError(
                f"`filter_pruning` can prune nothing in {type(network).__name__}"
                + (f" ({reasons})" if reasons else "; it has no convolution")
                + ". `grouping: full` allows linear layers, first, last and strided convolutions"
            )
        self._set_up(
            network, groups, layer_costs(graph), [torch.ones(g.units, dtype=torch.bool) for g in groups.groups]
        )
        if self.config.params.pruning_flops_target is not None:
            self.ranking.masks(self.config.params.target, self._importance())
        self._refuse_no_removal(network)
        self._example = graph.example_inputs

    def _refuse_no_removal(self, network: nn.Module) -> None:
        """Raise an error where the share of each layer that is to go rounds to no filter at all."""
        params, groups = self.config.params, self.groups.groups
        if params.all_weights or params.pruning_flops_target is not None or params.pruning_latency_target is not None:
            return
        if params.target > 0 and not any(
            pruned_count(group.units, params.target, self.ranking.multiple(group)) for group in groups
        ):
            sizes = ", ".join(map(str, sorted({group.units for group in groups})))
            raise ConfigError(
                f"`filter_pruning` would remove nothing from {type(network).__name__}: the layers that it may prune "
                f"have {sizes} filters, of which `params.pruning_target: {params.target:g}` leaves all, for what stays "
                "is rounded up to a multiple of 8. Raise it, allow more layers with `grouping: full`, or rank the "
                "filters of all layers together with `all_weights: true`"
            )

    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None:
        """Give a plain network the sizes that a checkpoint has, and the same groups."""
        groups = Structure.from_dict(structure["groups"])
        costs = [LayerCost.from_dict(values) for values in structure["costs"]]
        present = _masks_without(groups, structure["removed"])
        shrink(network, groups, present)
        self._set_up(network, groups, costs, present)

    def structure(self) -> dict[str, Any]:
        """Return the groups, the cost of the layers, and the units that are physically gone."""
        return {
            "groups": self.groups.restricted(set(channelwise(self.network))).to_dict(),
            "costs": [layer.to_dict() for layer in self.ranking.costs],
            "removed": _removed(self.present),
        }

    def _set_up(self, network: nn.Module, groups: Structure, costs: Sequence[LayerCost], present: list[Tensor]) -> None:
        self._network, self.groups = network, groups
        self.ranking = Ranking(groups, costs, self.config.params)
        self.present = present
        self.masks = [mask.clone() for mask in present]
        params = self.config.params
        self._weights = WeightMasks(network, groups, norms=params.prune_batch_norms, gradients=params.zero_grad)

    @property
    def resizes(self) -> bool:
        """Whether filters are removed in training."""
        return self.config.params.shrink_at is not None

    @property
    def adaptation_samples(self) -> int:
        """Samples that batch norms adapt to."""
        return int(self.config.initializer.batchnorm_adaptation.num_bn_adaptation_samples)

    # Life -------------------------------------------------------------------------------------------------------------

    def initialize(self, network: nn.Module, data: CalibrationData) -> None:
        """Learn a ranking and measure latencies if asked to; mask the filters of the initial level.

        Raises:
            ConfigError: The latency target cannot be met, or ranking coefficients cannot be read.
        """
        params = self.config.params
        if params.interlayer_ranking_type == "learned_ranking":
            learn_ranking(network, self.ranking, self._weights, self.present, data)
        if params.pruning_latency_target is not None:
            self.rate_of_target = rate_for_latency(
                params.pruning_latency_target, network, self.ranking, self.present, self._example
            )
        self.set_level(self.scheduler.level)
        if any(not bool(mask.all()) for mask in self.masks):
            adapt_batch_norm(network, data, self.adaptation_samples)

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Take the optimizers whose state is sliced when weights are."""
        self._optimizers = tuple(optimizers)

    def after_optimizer_step(self) -> None:
        """Mask weights again, which the optimizer has moved."""
        self._apply()

    def set_level(self, level: float) -> None:
        """Choose masks anew for a level: a share of filters, FLOPs or latency, as the target is."""
        target = self.config.params.target
        if self.rate_of_target is not None and target:
            level = level / target * self.rate_of_target
        masks = self.ranking.masks(level, self._importance())
        self.masks = [mask & left for mask, left in zip(masks, self.present, strict=True)]
        self._weights.set(self.masks, self.present)

    def shrink(self) -> None:
        """Physically remove what is masked, from the network and from the state of the attached optimizers."""
        shrink(self.network, self.groups, self.masks, present=self.present, optimizers=self._optimizers)
        for network in self.copies:
            shrink(network, self.groups, self.masks, present=self.present)
        self.resized = self.resized or any(not torch.equal(a, b) for a, b in zip(self.masks, self.present, strict=True))
        self.present = [mask.clone() for mask in self.masks]
        self._weights.set(self.masks, self.present)

    def impose(self, network: nn.Module) -> None:
        """Mask the weights of a copy of the network."""
        self._weights.apply(network)

    def prepare_for_export(self, network: nn.Module) -> None:
        """Physically remove what is masked from a copy of the network."""
        shrink(network, self.groups, self.masks, present=self.present)

    def strip(self, network: nn.Module) -> None:
        """Leave the weights masked and forget them."""
        self._weights.apply()
        self._weights.remove()

    @property
    def network(self) -> nn.Module:
        """The network that is pruned."""
        assert self._network is not None, "built or restored before use"
        return self._network

    @property
    def stage(self) -> CompressionStage:
        """Fully compressed at the target level."""
        if self.scheduler.level >= self.config.params.target:
            return CompressionStage.FULLY_COMPRESSED
        none = all(bool(mask.all()) for mask in self.masks)
        return CompressionStage.UNCOMPRESSED if none else CompressionStage.PARTIALLY_COMPRESSED

    def _importance(self) -> list[Tensor]:
        parameters: dict[str, Tensor] = dict(self.network.named_parameters(remove_duplicate=False))
        return self.ranking.importance(parameters, self.present)

    def _on_level(self, level: float) -> None:
        if self.frozen:
            self._apply()
        else:
            self.set_level(level)
        at = self.config.params.shrink_at
        if at is not None and self.scheduler.current_epoch >= at:
            self.shrink()

    def _on_freeze(self) -> None:
        self.frozen = True

    def _apply(self, *_: object) -> None:
        self._weights.apply()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the optimizers: copies of them lose their hooks, so they are attached again."""
        return {**self.__dict__, "_optimizers": ()}

    # What it shows ----------------------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, Metric]:
        """Return metrics of filters, FLOPs and parameters left."""
        return {"pruned_filters": PrunedFilters(), "flops": FlopsLeft()}

    def observations(self) -> dict[str, Tensor]:
        """Return filters per layer, and costs, before and after removal of what is masked."""
        return description.observe(self.ranking, self.masks)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per convolution and linear layer: cost before, as computed now, and once masks are removed."""
        return description.rows(self.ranking, self.masks, self.present)

    def summary(self) -> list[str]:
        """Say what can be pruned, and what cannot and why."""
        return description.summary(self.groups)

    # State ------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's state and what is masked."""
        return {
            **super().state_dict(),
            "masked": _removed(self.masks),
            "frozen": self.frozen,
            "rate_of_target": self.rate_of_target,
            "coefficients": {name: list(pair) for name, pair in self.ranking.coefficients.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the schedule's state and the masks."""
        super().load_state_dict(state)
        self.frozen = bool(state["frozen"])
        self.rate_of_target = state["rate_of_target"]
        self.ranking.coefficients = {name: (pair[0], pair[1]) for name, pair in state["coefficients"].items()}
        self.masks = _masks_without(self.groups, state["masked"])
        self._weights.set(self.masks, self.present)


def _removed(masks: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Write masks as the units they drop."""
    return [pack(np.flatnonzero(~mask.numpy())) for mask in masks]


def _masks_without(groups: Structure, removed: Sequence[dict[str, Any]]) -> list[Tensor]:
    """Read `_removed`."""
    masks = [torch.ones(group.units, dtype=torch.bool) for group in groups.groups]
    for mask, units in zip(masks, removed, strict=True):
        mask[torch.from_numpy(unpack(units))] = False
    return masks
