"""Movement sparsity as pure functions.

After V. Sanh, T. Wolf, A. Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning" (2020), its soft version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["importance_loss", "limited_threshold", "score_mask_ste", "score_shape", "spread_scores"]

_KEPT_AT_LEAST = 0.98
_LAYER_FACTOR = 0.5


class _ScoreMask(torch.autograd.Function):
    """Step at a threshold whose gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, threshold: float) -> Tensor:
        return (scores > threshold).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def score_mask_ste(scores: Tensor, threshold: float) -> Tensor:
    """Return 1 where a score exceeds a threshold, else 0; the gradient passes straight through.

    >>> score_mask_ste(torch.tensor([-1.0, 0.0, 1.0]), 0.0)
    tensor([0., 0., 1.])
    """
    mask: Tensor = _ScoreMask.apply(scores, threshold)
    return mask


def limited_threshold(scores: Tensor, threshold: float) -> float:
    """Return a threshold that leaves at least some weights of every layer: at most the 98th percentile of its scores.

    >>> limited_threshold(torch.arange(101.0), 1e9)
    98.0
    """
    values = scores.detach().float().flatten()
    position = int(_KEPT_AT_LEAST * (len(values) - 1))
    return min(threshold, float(values.kthvalue(position + 1).values))


def score_shape(shape: Sequence[int], factors: Sequence[int]) -> tuple[int, int]:
    """Return how many structures of ``factors`` a weight has along each axis.

    Raises:
        ValueError: The weight cannot be divided so.

    >>> score_shape((8, 6), (4, 6))
    (2, 1)
    """
    if any(size % factor for size, factor in zip(shape, factors, strict=True)):
        raise ValueError(f"a weight of shape {list(shape)} cannot be divided into blocks of {list(factors)}")
    return shape[0] // factors[0], shape[1] // factors[1]


def spread_scores(values: Tensor, factors: Sequence[int]) -> Tensor:
    """Repeat the value of each structure for all of its weights.

    >>> spread_scores(torch.tensor([[1.0], [2.0]]), (1, 2))
    tensor([[1., 1.],
            [2., 2.]])
    """
    return values.repeat_interleave(factors[0], 0).repeat_interleave(factors[1], 1)


def importance_loss(scores: Sequence[Tensor], sizes: Sequence[int], factor: float) -> Tensor:
    """Return the loss that lets scores fall: the mean over layers of the scores' mean logistic value.

    Args:
        scores: Scores, one tensor per layer.
        sizes: Weights per structure of each layer.
        factor: Strength.

    >>> importance_loss([torch.zeros(4), torch.zeros(2)], [1, 3], 0.1)
    tensor(0.0500)
    """
    losses = [
        factor * torch.sigmoid(tensor).mean() * _LAYER_FACTOR * size for tensor, size in zip(scores, sizes, strict=True)
    ]
    return torch.stack(losses).mean()
