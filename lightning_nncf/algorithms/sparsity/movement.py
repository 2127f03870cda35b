"""Movement sparsity of linear layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor, nn

from lightning_nncf.algorithms.sparsity.base import MaskedSparsity
from lightning_nncf.algorithms.sparsity.mask import WeightMask
from lightning_nncf.algorithms.sparsity.movement_config import MovementSparsityConfig, StructureConfig
from lightning_nncf.algorithms.sparsity.movement_functional import (
    importance_loss,
    limited_threshold,
    score_mask_ste,
    score_shape,
    spread_scores,
)
from lightning_nncf.algorithms.sparsity.movement_structures import agreed_masks, shared_structures
from lightning_nncf.algorithms.sparsity.selection import kth_smallest
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.gradients import scale_gradient
from lightning_nncf.core.registry import register
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.core.weights import WeightPlace
from lightning_nncf.dependencies.groups import Group
from lightning_nncf.errors import ConfigError
from lightning_nncf.graph.graph import NetworkGraph
from lightning_nncf.graph.scopes import scope_filter
from lightning_nncf.schedules.polynomial import polynomial_level
from lightning_nncf.schedules.warmup import WarmupScheduler

__all__ = ["MovementMask", "MovementSparsity"]

_FIRST_SPARSITY = 0.001


class MovementMask(WeightMask):
    """Keeps structures of a weight whose trained score exceeds a threshold.

    Args:
        shape: Shape of the weight.
        factors: Rows and columns of one structure.
        multiplier: Factor on the gradients of the scores.
    """

    threshold: Tensor

    def __init__(self, shape: Sequence[int], factors: tuple[int, int], multiplier: float = 1.0) -> None:
        super().__init__(shape)
        self.factors = factors
        self.multiplier = multiplier
        self.scores = nn.Parameter(torch.zeros(score_shape(shape, factors)))
        self.register_buffer("threshold", torch.full((1,), -math.inf))
        self.frozen = False

    def masked(self, weight: Tensor) -> Tensor:
        """Set zeros where the mask drops, with gradients for what decides about it."""
        if self.frozen or not self.training:
            mask = self.kept()
            if not self.training:
                return torch.where(mask, weight, 0.0)
            # The scores stay in the graph: DistributedDataParallel waits for the gradient of every parameter.
            return weight * (mask + 0.0 * spread_scores(self.scores, self.factors)).to(weight.dtype)
        mask = spread_scores(score_mask_ste(self.learned(), self._limit()), self.factors)
        return weight * mask.to(weight.dtype)

    def kept(self) -> Tensor:
        """Return the mask that evaluation and export use."""
        if self.frozen:
            return self.mask
        return spread_scores(self.scores.detach() > self._limit(), self.factors)

    def freeze(self, mask: Tensor | None = None) -> None:
        """Keep the mask, or the one given, from now on."""
        self.mask.copy_(self.kept() if mask is None else mask)
        self.frozen = True

    def learned(self) -> Tensor:
        """Return the scores, with gradients as large as they are asked for."""
        return scale_gradient(self.scores, self.multiplier)

    def _limit(self) -> float:
        threshold = float(self.threshold)
        return threshold if threshold == -math.inf else limited_threshold(self.scores, threshold)


@register(MovementSparsityConfig)
class MovementSparsity(MaskedSparsity):
    """Masks from trained scores; a loss lets scores fall, a threshold that rises drops the lowest.

    The scores are trained by the user's optimizer; Adam with the learning rate of fine-tuning suits them.

    Args:
        config: Settings.
        root: The whole configuration.
    """

    name: ClassVar[str] = "movement_sparsity"
    functions: ClassVar[frozenset[str]] = frozenset({"linear"})
    scheduler: WarmupScheduler
    masks: list[MovementMask]  # type: ignore[assignment]

    def __init__(self, config: MovementSparsityConfig, root: NNCFConfig) -> None:
        super().__init__(config, root)
        params = config.params
        self.scheduler = WarmupScheduler(params.warmup_start_epoch, params.warmup_end_epoch, params.steps_per_epoch)
        self.scheduler.attach(self._warm_up, self.freeze)
        self.factors: dict[str, tuple[int, int]] = {}
        self.groups: tuple[Group, ...] = ()
        self._factor = 0.0
        self._first_threshold: float | None = params.init_importance_threshold
        self.frozen = False

    def build(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Find the structures by scope, and insert masks that keep everything."""
        types = {name: type(module).__name__ for name, module in network.named_modules(remove_duplicate=False)}
        addresses = [op.address for op in graph.ops()]
        self._structures = [
            (scope_filter(addresses, target=entry.target_scopes, module_types=types), entry)
            for entry in self.config.sparse_structure_by_scopes
        ]
        super().build(network, graph)

    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None:
        """Insert the masks that a checkpoint lists."""
        self.factors = {name: (int(rows), int(columns)) for name, (rows, columns) in structure["factors"].items()}
        self.groups = tuple(map(Group.from_dict, structure["groups"]))
        super().restore(network, structure)

    def structure(self) -> dict[str, Any]:
        """Return where the masks are and how they are structured."""
        return {
            **super().structure(),
            "factors": {name: list(factors) for name, factors in self.factors.items()},
            "groups": [group.to_dict() for group in self.groups],
        }

    def loss(self) -> Tensor | None:
        """Return the loss on the scores; none before the warmup and once masks are frozen."""
        if self.frozen or self._factor == 0:
            return None
        sizes = [math.prod(module.factors) for module in self.masks]
        return importance_loss([module.learned() for module in self.masks], sizes, self._factor)

    @property
    def stage(self) -> CompressionStage:
        """Fully compressed once masks are frozen."""
        if self.frozen:
            return CompressionStage.FULLY_COMPRESSED
        started = self.scheduler.current_epoch >= self.scheduler.start_epoch
        return CompressionStage.PARTIALLY_COMPRESSED if started else CompressionStage.UNCOMPRESSED

    def freeze(self) -> None:
        """Let masks change no more, once layers agree on the structures that they share."""
        if self.frozen:
            return
        before = self.sparsity()
        kept = {place.name: module.kept() for place, module in zip(self.places, self.masks, strict=True)}
        agreed = agreed_masks(kept, self.groups)
        for place, module in zip(self.places, self.masks, strict=True):
            module.freeze(agreed.get(place.name))
        self.frozen = True
        if self.groups:
            rank_zero_info(
                f"MovementSparsity: {len(agreed)} layers agree on the structures that they share; that changes the "
                f"sparsity from {before:.4f} to {self.sparsity():.4f}"
            )

    def summary(self) -> list[str]:
        """Say which layers will be structured."""
        if not self.config.params.enable_structured_masking:
            return super().summary()
        names = {member.name for group in self.groups for member in group.members}
        units = sum(group.units for group in self.groups)
        alone = [place.address for place in self.places if place.name not in names]
        lines = [
            *super().summary(),
            f"MovementSparsity: {len(names)} layers keep or drop {units} heads and hidden channels whole",
        ]
        if alone:
            lines.append(f"MovementSparsity: these layers share none, their masks stay fine: {', '.join(alone)}")
        return lines

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the schedule."""
        own = {"factor": self._factor, "first_threshold": self._first_threshold, "frozen": self.frozen}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the state of the schedule."""
        super().load_state_dict(state)
        self._factor, self._first_threshold = float(state["factor"]), state["first_threshold"]
        self.frozen = bool(state["frozen"])
        for module in self.masks:
            module.frozen = self.frozen

    @torch.no_grad()
    def _warm_up(self, share: float) -> None:
        if self.frozen:
            return
        params = self.config.params
        if self._first_threshold is None:
            scores = [module.scores for module in self.masks]
            total = sum(tensor.numel() for tensor in scores)
            self._first_threshold = float(kth_smallest(scores, int(_FIRST_SPARSITY * (total - 1))))
        threshold = polynomial_level(
            share, self._first_threshold, params.final_importance_threshold, power=params.power
        )
        self._factor = polynomial_level(share, 0.0, params.importance_regularization_factor, power=params.power)
        for module in self.masks:
            module.threshold.fill_(threshold)

    def _prepare(self, network: nn.Module, graph: NetworkGraph) -> None:
        if self.config.params.enable_structured_masking:
            self.groups = shared_structures(network, graph, {place.name for place in self.places})

    def _make_mask(self, place: WeightPlace) -> MovementMask:
        if place.name not in self.factors:
            self.factors[place.name] = self._factors_of(place)
        return MovementMask(place.shape, self.factors[place.name], self.lr_multiplier)

    def _factors_of(self, place: WeightPlace) -> tuple[int, int]:
        entry = next((entry for inside, entry in self._structures if inside(place.address)), StructureConfig())
        rows, columns = place.shape
        if entry.mode == "per_dim":
            return (1, columns) if entry.axis == 0 else (rows, 1)
        factors = (1, 1) if entry.sparse_factors is None else (entry.sparse_factors[0], entry.sparse_factors[1])
        try:
            score_shape(place.shape, factors)
        except ValueError as error:
            raise ConfigError(f"`sparse_factors` at {place.address!r}: {error}") from None
        return factors
