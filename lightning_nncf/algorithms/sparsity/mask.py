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
        self.written = False
        """Whether the zeros are in the weight itself, so that nothing is left to do."""
        self._watching = False
        self._gradient: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with zeros."""
        return weight if self.written else self.masked(weight)

    def masked(self, weight: Tensor) -> Tensor:
        """Set zeros where the mask drops."""
        masked = torch.where(self.mask, weight, 0.0)
        if self._watching and masked.requires_grad:
            masked.register_hook(self._collect)  # type: ignore[no-untyped-call]
        return masked

    def watch(self) -> None:
        """Collect the gradient by the masked weight, at dropped places too, from the next backward on."""
        self._watching = True

    def collected(self) -> Tensor | None:
        """Return the gradient collected since `watch`, and stop collecting."""
        gradient, self._gradient, self._watching = self._gradient, None, False
        return gradient

    def _collect(self, gradient: Tensor) -> None:
        self._gradient = gradient.clone() if self._gradient is None else self._gradient + gradient

    def set_mask(self, mask: Tensor) -> None:
        """Replace the values of the mask, in place."""
        self.mask.copy_(mask)

    def kept(self) -> Tensor:
        """Return the mask that evaluation and export use."""
        return self.mask
