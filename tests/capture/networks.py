"""Small networks and modules shared by the tests of the hooks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from lightning_nncf.capture.trace import trace
from lightning_nncf.graph.graph import InsertionPoint, NetworkGraph
from lightning_nncf.hooks.insertion import insert, sites
from lightning_nncf.hooks.order import own_first


class Affine(nn.Module):
    """Multiplies by a learnable factor and adds a constant: never the identity, so that a lost hook shows."""

    def __init__(self, factor: float, shift: float = 0.05) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([factor]))
        self.shift = shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor + self.shift


class Block(nn.Module):
    """A residual block with a ReLU called twice, an addition and a functional op."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.conv1(x))
        out = self.conv2(out) + x
        return F.gelu(self.relu(out) + 1.0)


class Net(nn.Module):
    """Two residual blocks and a head; returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(x.mean((2, 3)))}


# Every kind of site: (kind, address, port, factor).
NET_POINTS = [
    ("weight", "stem/conv2d:0", 1, 1.3),
    ("weight", "blocks.0.conv1/conv2d:0", 1, 0.8),
    ("weight", "blocks.1.conv2/conv2d:0", 1, 1.2),
    ("weight", "head/linear:0", 1, 1.4),
    ("output", "/input:0", 0, 0.9),
    ("output", "blocks.0.relu/relu:0", 0, 1.1),
    ("output", "blocks.0.relu@1/relu:0", 0, 0.7),
    ("output", "blocks.1.relu@1/relu:0", 0, 1.25),
    ("input", "blocks.0/add:0", 1, 1.15),
    ("output", "blocks.0/add:0", 0, 0.95),
    ("output", "blocks.1/gelu:0", 0, 1.35),
    ("output", "/mean:0", 0, 0.85),
]


def reference(net: Net, x: torch.Tensor, affine: Callable[[int, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Compute what `Net` returns with `NET_POINTS` inserted, written out; ``affine(i, t)`` applies point ``i``."""
    b0, b1 = net.blocks
    x = affine(4, x)
    x = F.conv2d(x, affine(0, net.stem.weight), net.stem.bias, padding=1)
    out = F.conv2d(x, affine(1, b0.conv1.weight), b0.conv1.bias, padding=1)
    out = affine(5, F.relu(out))
    out = affine(9, F.conv2d(out, b0.conv2.weight, b0.conv2.bias, padding=1) + affine(8, x))
    x = F.gelu(affine(6, F.relu(out)) + 1.0)
    out = F.relu(F.conv2d(x, b1.conv1.weight, b1.conv1.bias, padding=1))
    out = F.conv2d(out, affine(2, b1.conv2.weight), b1.conv2.bias, padding=1) + x
    x = affine(10, F.gelu(affine(7, F.relu(out)) + 1.0))
    return F.linear(affine(11, x.mean((2, 3))), affine(3, net.head.weight), net.head.bias)


def hooked_net() -> tuple[Net, list[Affine]]:
    """Return a `Net` with `NET_POINTS` inserted and the modules inserted."""
    torch.manual_seed(0)
    net = Net()
    graph = trace(net, lambda: net(torch.rand(2, 3, 6, 6)))
    modules = []
    for kind, address, port, factor in NET_POINTS:
        module = Affine(factor)
        put(net, graph, kind, address, port, module)
        modules.append(module)
    own_first(net)
    return net, modules


def put(net: nn.Module, graph: NetworkGraph, kind: str, address: str, port: int, module: nn.Module) -> None:
    """Insert a module at all sites of a point; there must be one at least."""
    places = sites(graph, net, InsertionPoint(kind=kind, address=address, port=port))
    assert places, (kind, address, port)
    for site in places:
        insert(net, site, module, algorithm="test", priority=1)


def gradients(net: nn.Module) -> dict[str, torch.Tensor]:
    """Return the gradients by name; parameters without one are left out."""
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
