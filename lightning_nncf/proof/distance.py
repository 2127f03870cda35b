"""One number for how far two tensors are apart."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["relative_rms"]


def relative_rms(value: Tensor, reference: Tensor) -> float:
    """Return the root mean square of the difference, relative to the reference's; inf where anything is not finite.

    >>> relative_rms(torch.tensor([3.0, 9.0]), torch.tensor([0.0, 5.0]))
    1.0
    """
    if value.shape != reference.shape:
        return float("inf")
    value, reference = value.double(), reference.double()
    if reference.numel() == 0 or torch.equal(value, reference):
        return 0.0
    error, size = (value - reference).square().mean().sqrt().item(), reference.square().mean().sqrt().item()
    ratio = error / size if size > 0 else float("inf")
    return ratio if ratio == ratio else float("inf")
