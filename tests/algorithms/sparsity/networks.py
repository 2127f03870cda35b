"""Small networks, data and helpers of the sparsity tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_nncf import compress
from lightning_nncf.core.compressed import CompressedNetwork


def network(seed: int = 0) -> nn.Sequential:
    """A convolution of 288 weights, one of 576 in two groups, and a linear layer of 80."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def batch(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def make(section: dict[str, Any], net: nn.Module | None = None, **root: Any) -> CompressedNetwork:
    return compress(net or network(), {"compression": section, **root}, [batch()])


def multistep(*levels: float, freeze: int = 100, **params: Any) -> dict[str, Any]:
    """Params of a schedule that goes through the levels, one per epoch."""
    return {
        "schedule": "multistep",
        "multistep_steps": list(range(1, len(levels))),
        "multistep_sparsity_levels": list(levels),
        "sparsity_freeze_epoch": freeze,
        **params,
    }
