"""Wrappers that strategies put around a module."""

from __future__ import annotations

from typing import Any

from torch.nn.parallel import DistributedDataParallel

__all__ = ["renew_wrapper"]


def renew_wrapper(trainer: Any) -> None:
    """Make DistributedDataParallel anew, whose buckets have the sizes that parameters had before."""
    strategy = trainer.strategy
    if isinstance(strategy.model, DistributedDataParallel):
        # The old one must be gone first: its hooks hold what autograd knows of the old sizes.
        strategy.model = strategy.model.module
        strategy.configure_ddp()
