from __future__ import annotations

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_nncf.graph.flops import layer_costs, total
from lightning_nncf.graph.trace import trace


def _count(network: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    """Count with torch's own counter in evaluation mode, per sample."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(x)
    return counter.get_total_flops() // len(x), total(layer_costs(trace(network, lambda: network(x)))).flops


def test_flops_of_resnet_equal_those_of_torch() -> None:
    expected, got = _count(torchvision.models.resnet18(), torch.rand(2, 3, 64, 64))
    assert got == expected


def test_flops_of_grouped_and_depthwise_convolutions_equal_those_of_torch() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.Conv2d(8, 8, 3, groups=2, stride=2))
    expected, got = _count(network, torch.rand(2, 4, 9, 9))
    assert got == expected == 2 * 8 * 9 * 81 + 2 * 8 * 4 * 9 * 16


def test_transposed_convolution_uses_its_weight_once_per_input() -> None:
    network = nn.ConvTranspose2d(4, 6, 3, stride=2)
    expected, got = _count(network, torch.rand(2, 4, 5, 5))
    assert got == expected == 2 * 4 * 6 * 9 * 25


def test_linear_layer_on_tokens_counts_every_token() -> None:
    network = nn.Linear(8, 16)
    expected, got = _count(network, torch.rand(2, 5, 8))
    assert got == expected == 2 * 8 * 16 * 5


def test_parameters_are_weights_without_biases_and_count_once_when_shared() -> None:
    layer = nn.Conv2d(4, 4, 1)
    network = nn.Sequential(layer, nn.BatchNorm2d(4), layer)
    cost = total(layer_costs(trace(network, lambda: network(torch.rand(2, 4, 3, 3)))))
    assert (cost.parameters, cost.flops) == (16, 2 * 2 * 16 * 9)


def test_heads_that_only_run_in_training_cost_nothing() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = nn.Linear(2, 2)
            self.side = nn.Linear(2, 8)

        def forward(self, x: torch.Tensor) -> object:
            return (self.main(x), self.side(x)) if self.training else self.main(x)

    network = Auxiliary()
    costs = layer_costs(trace(network, lambda: network(torch.rand(3, 2))))
    assert [layer.weight for layer in costs] == ["main.weight"]
