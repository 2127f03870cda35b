"""Losses of distillation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["distillation_mse", "soft_cross_entropy"]


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the cross entropy of two distributions of classes, multiplied by the square of the temperature.

    The square keeps the size of the gradients whatever the temperature is, as in `Distilling the Knowledge in a Neural
    Network <https://arxiv.org/abs/1503.02531>`_, section 2.

    Args:
        student: Logits, [samples, classes].
        teacher: Logits that are to be met, [samples, classes].
        temperature: What both are divided by.

    Returns:
        The mean over samples, shape [], at least in float32.

    >>> soft_cross_entropy(torch.zeros(1, 2), torch.tensor([[9.0, 1.0]]), temperature=2.0)
    tensor(2.7726)
    """
    targets = F.softmax(_wide(teacher) / temperature, dim=1)
    return F.cross_entropy(_wide(student) / temperature, targets) * temperature**2


def distillation_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error of two tensors of one shape, shape [], at least in float32.

    >>> distillation_mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0]]))
    tensor(5.)
    """
    return F.mse_loss(_wide(student), _wide(teacher))


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
