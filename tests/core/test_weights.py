from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from lightning_nncf.capture.trace import trace
from lightning_nncf.core.weights import CONVOLUTIONS, WeightPlace, find_weights


class Shared(nn.Module):
    """A layer called twice, a grouped convolution, and a bias-like parameter of two axes that is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3)) * self.scale.T
        return self.head(self.head(x))


def places() -> list[WeightPlace]:
    net = Shared()
    graph = trace(net, lambda: net(torch.zeros(2, 4, 6, 6)))
    return find_weights(net, graph, CONVOLUTIONS | {"linear"}, lambda address: True)


def test_weights_are_found_once_with_all_their_readers() -> None:
    conv, head = places()
    assert (conv.name, conv.function, conv.groups, conv.shape) == ("conv.weight", "conv2d", 2, (8, 2, 3, 3))
    assert (head.name, head.function, head.groups, head.shape) == ("head.weight", "linear", 1, (8, 8))
    assert len(head.sites) == 1


def test_places_survive_a_checkpoint() -> None:
    for place in places():
        assert WeightPlace.from_dict(json.loads(json.dumps(place.to_dict()))) == place


def test_only_ops_inside_are_looked_at() -> None:
    net = Shared()
    graph = trace(net, lambda: net(torch.zeros(2, 4, 6, 6)))
    found = find_weights(net, graph, {"linear"}, lambda address: address.startswith("head@1/"))
    assert [place.name for place in found] == ["head.weight"]
