"""A network with a shared quantizer, a residual sum and pooling, and what the tests do with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.algorithms.quantization.placement import PlacementSettings, place_quantizers
from lightning_nncf.algorithms.quantization.precision.naming import PointNames
from lightning_nncf.algorithms.quantization.request import placement_settings
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.capture.trace import trace
from lightning_nncf.config import NNCFConfig
from lightning_nncf.graph.graph import NetworkGraph


class Mixed(nn.Module):
    """Convolution, pooling, two branches that are concatenated, a sum and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Conv2d(4, 4, 1)
        self.join = nn.Conv2d(8, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 1, H, W] to [N, 3]."""
        x = F.max_pool2d(self.relu(self.stem(x)), 2)
        both = torch.cat([self.relu(self.left(x)), self.relu(self.right(x))], dim=1)
        return self.head((self.join(both) + x).mean((2, 3)))


def quantization(precision: dict[str, Any], device: str = "TRIAL", **section: Any) -> dict[str, Any]:
    """Return a configuration with a section of mixed precision."""
    initializer = {
        "precision": precision,
        "range": {"num_init_samples": 8},
        "batchnorm_adaptation": {"num_bn_adaptation_samples": 0},
    }
    return {
        "target_device": device,
        "compression": {"algorithm": "quantization", "initializer": initializer, **section},
    }


def placed(
    network: nn.Module, x: Tensor, device: str = "TRIAL", **section: Any
) -> tuple[NetworkGraph, PlacementSettings, QuantizationSetup, PointNames]:
    """Capture a network and place quantizers."""
    network.eval()
    graph = trace(network, lambda: network(x))
    root = NNCFConfig.load({"target_device": device, "compression": {"algorithm": "quantization", **section}})
    settings = placement_settings(root.compression[0], root, network, graph)  # type: ignore[arg-type]
    setup = place_quantizers(graph, settings)
    return graph, settings, setup, PointNames(network, graph, setup)


def batches(count: int = 2, size: int = 4) -> list[list[Tensor]]:
    """Return batches of images and labels."""
    generator = torch.Generator().manual_seed(0)
    return [
        [torch.randn(size, 1, 8, 8, generator=generator), torch.randint(3, (size,), generator=generator)]
        for _ in range(count)
    ]
