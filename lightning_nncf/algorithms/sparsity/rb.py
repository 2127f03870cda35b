"""RB sparsity: masks learned together with the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import Metric

from lightning_nncf.algorithms.sparsity.config import RBSparsityConfig
from lightning_nncf.algorithms.sparsity.rb_functional import (
    STEP,
    density,
    follow_density,
    rb_loss,
    root_mean_square,
    step_logits,
)
from lightning_nncf.algorithms.sparsity.rb_mask import LearnedMask
from lightning_nncf.algorithms.sparsity.scheduled import ScheduledSparsity
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.registry import register
from lightning_nncf.core.weights import WeightPlace
from lightning_nncf.errors import InitializationError
from lightning_nncf.statistics.sparsity import MaskProbability

__all__ = ["RBSparsity"]

_SEED = 0x5EED
_LAYERS = 1 << 16
# While masks are learned, a level this near is left as it is.
_LAST_MOVES = 0.002


@register(RBSparsityConfig)
class RBSparsity(ScheduledSparsity):
    """Masks drawn from learned probabilities; a loss holds their number at the scheduled level.

    The mask's parameters take steps of their own before each optimizer step: at the learning rate of weights they
    would not move (SGD), or all at once (Adam). The user's optimizer never sees their gradients, so neither its
    learning rate nor its weight decay concerns them.

    Args:
        config: Settings.
        root: The whole configuration.
    """

    name: ClassVar[str] = "rb_sparsity"
    masks: list[LearnedMask]  # type: ignore[assignment]

    def __init__(self, config: RBSparsityConfig, root: NNCFConfig) -> None:
        super().__init__(config, root)
        self.scheduler.attach(self._follow, self.freeze, self._sample)
        self._level = self.scheduler.initial
        self._advised = False

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Advise once against weight decay on weights whose masks are learned."""
        masked = {id(place.parameter_of(self.network)) for place in self.places}
        decays = [
            group["weight_decay"]
            for optimizer in optimizers
            for group in optimizer.param_groups
            if group.get("weight_decay") and any(id(parameter) in masked for parameter in group["params"])
        ]
        if decays and not self._advised:
            self._advised = True
            rank_zero_warn(
                f"the optimizer has a weight decay of {max(decays):g} on weights whose masks `rb_sparsity` learns; it "
                "competes with the masks, and 0 usually keeps more accuracy (the masks themselves are not decayed)"
            )

    def loss(self) -> Tensor | None:
        """Return the loss on the number of weights kept; none once masks are frozen.

        In the local mode it is the mean of the layers' losses. Its gradient ends at the density: bringing that to the
        level is done exactly before the optimizer steps, so that the masks' gradients are those of the task alone.
        """
        if self.frozen:
            return None
        losses = [
            rb_loss(density([self.masks[index].logits for index in group]).requires_grad_(), 1 - level)
            for group, level in self._groups()
        ]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def before_optimizer_step(self) -> None:
        """Step the logits by the gradients of the task, then bring their number to the level."""
        gradients = [module.logits.grad for module in self.masks]
        for module in self.masks:
            module.logits.grad = None
        if self.frozen or any(gradient is None for gradient in gradients):
            return
        given = [gradient.float() for gradient in gradients if gradient is not None]
        groups = self._groups()
        scales = [root_mean_square([given[index] for index in group]) for group, _ in groups]
        if not all(map(math.isfinite, scales)):
            return
        for (group, level), scale in zip(groups, scales, strict=True):
            logits = [self.masks[index].logits for index in group]
            step_logits(logits, [given[index] for index in group], scale, rate=STEP * self.lr_multiplier)
            follow_density(logits, self._weights_of(group), 1 - level)

    @torch.no_grad()
    def freeze(self) -> None:
        """Let masks change no more, once the few that the level is away from have changed."""
        if not self.frozen:
            for group, level in self._groups():
                logits = [self.masks[index].logits for index in group]
                follow_density(logits, self._weights_of(group), 1 - level, speed=_LAST_MOVES, tolerance=0.0)
            super().freeze()
            for module in self.masks:
                module.freeze()

    def metrics(self) -> dict[str, Metric]:
        """Return metrics of sparsity, its target and the probability to be dropped."""
        return {**super().metrics(), "mask_probability": MaskProbability()}

    @torch.no_grad()
    def observations(self) -> dict[str, Tensor]:
        """Return what the metrics need."""
        dropped = torch.stack([torch.sigmoid(-module.logits).sum().cpu() for module in self.masks]).sum()
        count = sum(module.logits.numel() for module in self.masks)
        return {**super().observations(), "drop_probability": dropped / count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set state from `state_dict`; the masks themselves come with the weights."""
        super().load_state_dict(state)
        self._level = self.scheduler.level
        for module in self.masks:
            module.frozen = self.frozen

    def _apply(self, level: float) -> None:
        self._level = level
        if self.config.params.check_sparsity_masks:
            self._check_equal()

    def _sample(self, step: int) -> None:
        if not self.frozen:
            for index, module in enumerate(self.masks):
                module.sample((_SEED + step) * _LAYERS + index)

    def _groups(self) -> list[tuple[list[int], float]]:
        """Return the layers that share a level, with the level."""
        if self.targets is None:
            return [(list(range(len(self.masks))), self._level)]
        return [([index], self._local_level(self._level, target)) for index, target in enumerate(self.targets)]

    def _weights_of(self, group: Iterable[int]) -> list[Tensor]:
        """Return what decides among equal logits of the layers of a group."""
        return [self.places[index].parameter_of(self.network) for index in group]

    def _check_equal(self) -> None:
        """Refuse to go on with masks that differ between processes.

        Raises:
            InitializationError: They differ.
        """
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        sums = torch.stack([module.logits.detach().double().sum() for module in self.masks])
        low, high = sums.clone(), sums.clone()
        distributed.all_reduce(low, op=distributed.ReduceOp.MIN)
        distributed.all_reduce(high, op=distributed.ReduceOp.MAX)
        if not torch.equal(low, high):
            raise InitializationError(
                f"the masks of `{self.name}` differ between processes; give every process the same data for "
                "initialization, and let gradients be reduced before the optimizer steps"
            )

    def _make_mask(self, place: WeightPlace) -> LearnedMask:
        return LearnedMask(place.shape)
