"""Tensors inside the network and inside its teacher, seen where they are made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.core.gradients import scale_gradient

__all__ = ["FeatureTap", "Seen", "channel_axis"]


class Seen:
    """The tensor that passed last, which belongs to one network and to none of its copies."""

    def __init__(self) -> None:
        self.tensor: Tensor | None = None
        self.wanted = False

    def take(self) -> Tensor | None:
        """Return the tensor and forget it."""
        tensor, self.tensor = self.tensor, None
        return tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> Seen:
        """Return one that has seen nothing."""
        return Seen()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle nothing that was seen."""
        return Seen, ()


def channel_axis(ndim: int) -> int:
    """Return the axis of channels: the last of sequences, else the one behind the samples.

    >>> channel_axis(4), channel_axis(3), channel_axis(2)
    (1, 2, 1)
    """
    return 2 if ndim == 3 else 1


class FeatureTap(nn.Module):
    """Lets a tensor pass and keeps it, mapped to the channels of a teacher if asked to.

    What it has is laid out along the axis of the tensor's channels, so that pruning slices it with them.

    Args:
        shape: Shape of the tensor, samples first.
        out: Channels of the teacher to project to; none projects nothing.
        index: Position among all taps, for the random numbers that a projection begins with.
        multiplier: Factor on the gradients of the projection.

    >>> tap = FeatureTap([1, 3, 2, 2], out=5)
    >>> tap.compared(torch.ones(4, 3, 2, 2), torch.ones(4, 5, 2, 2))[0].shape
    torch.Size([4, 5, 2, 2])
    """

    weight: nn.Parameter | None
    kept: Tensor | None

    def __init__(self, shape: Any, out: int | None = None, index: int = 0, multiplier: float = 1.0) -> None:
        super().__init__()
        axis = channel_axis(len(shape))
        channels = int(shape[axis])
        middle = [1] * (axis - 1)
        self.axis = axis
        self.seen = Seen()
        self.enabled = False  # it changes nothing, so nothing is lost without it
        self.multiplier = multiplier
        if out is None:
            self.register_parameter("weight", None)
            self.register_buffer("kept", torch.arange(channels).reshape(1, *middle, channels))
        else:
            generator = torch.Generator().manual_seed(index)
            weight = torch.randn(out, *middle, channels, generator=generator) / channels**0.5
            self.weight = nn.Parameter(weight)
            self.register_buffer("kept", None)

    def forward(self, tensor: Tensor) -> Tensor:
        """Return the tensor as it is."""
        if self.seen.wanted:
            self.seen.tensor = tensor
        return tensor

    def compared(self, mine: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tensor that passed and the teacher's in one shape.

        Channels that pruning took from the network are left out of the teacher's.
        """
        if self.weight is not None:
            weight = scale_gradient(self.weight, self.multiplier).flatten(1).to(mine.dtype)
            projected = F.linear(mine.movedim(self.axis, -1), weight)
            return projected.movedim(-1, self.axis), other
        assert self.kept is not None
        if mine.shape[self.axis] != other.shape[self.axis]:
            other = other.index_select(self.axis, self.kept.flatten())
        return mine, other
