"""A mask that is learned by logits, one per weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_nncf.algorithms.sparsity.mask import WeightMask
from lightning_nncf.algorithms.sparsity.rb_functional import INITIAL_LOGIT, binary_mask_ste
from lightning_nncf.core.idle import idle
from lightning_nncf.ops import sample_and_mask

__all__ = ["LearnedMask"]


class LearnedMask(WeightMask):
    """Keeps a weight where its logit, in training with noise added, is positive.

    The noise belongs to an optimizer step and not to a call, so that recomputed activations, shared weights,
    accumulated gradients and all processes see the same mask.

    Args:
        shape: Shape of the weight.

    >>> module = LearnedMask([2])
    >>> with torch.no_grad():
    ...     _ = module.logits.copy_(torch.tensor([1.0, -1.0]))
    >>> module(torch.tensor([3.0, 4.0]))
    tensor([3., 0.], grad_fn=<MulBackward0>)
    """

    logits: nn.Parameter
    seed: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.logits = nn.Parameter(torch.full(tuple(shape), INITIAL_LOGIT))
        self.register_buffer("seed", torch.zeros(1, dtype=torch.int64), persistent=False)
        self.frozen = False
        self._sampling = False

    def masked(self, weight: Tensor) -> Tensor:
        """Set zeros where the mask drops, with gradients for what decides about it."""
        if self.frozen:
            return idle(self, torch.where(self.mask, weight, 0.0))
        if self.training and self._sampling:
            return sample_and_mask(weight, self.logits, self.seed)
        return weight * binary_mask_ste(self.logits).to(weight.dtype)

    def sample(self, seed: int) -> None:
        """Set the noise of one optimizer step; the same seed gives the same noise in every process."""
        self.seed.fill_(seed)
        self._sampling = True

    def freeze(self) -> None:
        """Keep the mask without noise from now on."""
        self.mask.copy_(self.logits.detach() > 0)
        self.frozen = True

    def kept(self) -> Tensor:
        """Return the mask that evaluation and export use."""
        return self.mask if self.frozen else self.logits.detach() > 0
