from __future__ import annotations

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_nncf import compress
from lightning_nncf.capture.trace import trace
from lightning_nncf.graph.flops import layer_costs, total
from tests.algorithms.pruning import networks


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


class Attention(nn.Module):
    """Attention of 5 queries to 7 keys and values, and a head."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **sizes)
        self.head = nn.Linear(8, 3)
        self.keys, self.values = (nn.Parameter(torch.rand(2, 7, sizes.get(name, 8))) for name in ("kdim", "vdim"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(x, self.keys * 2, self.values * 2, need_weights=False)[0])


def test_projections_of_fused_attention_are_counted_token_by_token() -> None:
    # Queries and outputs 5 tokens, keys and values 7, the head 5; torch counts no fused product on a CPU.
    expected, got = _count(Attention(), torch.rand(2, 5, 8))
    assert got == expected == 2 * 8 * 8 * (5 + 7 + 7 + 5) + 2 * 8 * 3 * 5


def test_projections_of_other_widths_are_counted_one_by_one() -> None:
    expected, got = _count(Attention(kdim=4, vdim=6), torch.rand(2, 5, 8))
    assert got == expected == 2 * 8 * (8 * 5 + 4 * 7 + 6 * 7 + 8 * 5) + 2 * 8 * 3 * 5


def test_products_of_activations_that_torch_counts_cost_nothing_here() -> None:
    expected, got = _count(networks.Transformer(), torch.rand(networks.TOKENS))
    # Two products of 5 x 5 tokens with 4 heads of width 2.
    assert expected - got == 2 * (2 * 5 * 5 * 2 * 4)


def test_rows_of_each_layer_are_what_torch_counts_before_and_after() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 64)
    network = torchvision.models.resnet18()
    before = _by_layer(network, x)
    params = {"pruning_flops_target": 0.4, "schedule": "baseline", "grouping": "full", "shrink_at": 1}
    compressed = compress(network, {"compression": {"algorithm": "filter_pruning", "params": params}}, example_inputs=x)
    compressed.epoch_step()
    after = _by_layer(compressed.exportable(), x)
    rows = {row["parameter"].removesuffix(".weight"): row for row in compressed.rows()}
    assert {name: row["flops"] for name, row in rows.items()} == before
    assert {name: row["flops_now"] for name, row in rows.items()} == before
    assert {name: row["flops_left"] for name, row in rows.items()} == after
    assert 0.55 < sum(after.values()) / sum(before.values()) <= 0.6
    compressed.epoch_step()
    assert {row["parameter"].removesuffix(".weight"): row["flops_now"] for row in compressed.rows()} == after


def _by_layer(network: nn.Module, x: torch.Tensor) -> dict[str, int]:
    """Count the FLOPs of every convolution and linear layer with torch's own counter."""
    names = [name for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(x)
    counts = counter.get_flop_counts()
    return {name: sum(counts[f"{type(network).__name__}.{name}"].values()) for name in names}
