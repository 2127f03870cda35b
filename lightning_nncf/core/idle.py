"""Modules that are inserted but do not act yet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["acts", "idle"]


def idle(module: nn.Module, x: Tensor) -> Tensor:
    """Pass a tensor through a module that does not act yet.

    Args:
        module: The module, for its parameters: DistributedDataParallel waits for the gradient of each of them.
        x: The tensor.

    Returns:
        The tensor, of the same values.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not (distributed and module.training and torch.is_grad_enabled()):
        return x
    return x + 0 * torch.stack([parameter.sum() for parameter in module.parameters()]).sum().to(x.dtype)


def acts(module: nn.Module) -> bool:
    """Whether an inserted module does its work already.

    One that begins later has ``enabled``, and ``initialized`` if it takes something from the first data that it sees.
    """
    return bool(getattr(module, "enabled", True)) and bool(getattr(module, "initialized", True))
