"""The module that lets a mask act on a weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["WeightMask"]


class WeightMask(nn.Module):
    """Sets the weights outside a mask to exact zeros; they get no gradient.

    Args:
        shape: Shape of the weight; at first the mask keeps everything.

    >>> module = WeightMask([3])
    >>> module.set_mask(torch.tensor([True, False, True]))
    >>> module(torch.tensor([1.0, 2.0, 3.0]))
    tensor([1., 0., 3.])
    """

    mask: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(tuple(shape), dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with zeros."""
        return torch.where(self.mask, weight, 0.0)

    def set_mask(self, mask: Tensor) -> None:
        """Replace the values of the mask, in place."""
        self.mask.copy_(mask)

    def kept(self) -> Tensor:
        """Return the mask that evaluation and export use."""
        return self.mask
