from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.algorithms.quantization.initialization.smooth_quant import (
    SmoothGroup,
    smooth,
    smooth_groups,
    smoothing_factors,
)
from lightning_nncf.algorithms.quantization.placement import PlacementSettings, place_quantizers
from lightning_nncf.calibration import CalibrationData
from lightning_nncf.capture.trace import trace
from lightning_nncf.core.compression import compress
from lightning_nncf.hooks.insertion import strip


def _groups(network: nn.Module, x: Tensor) -> list[SmoothGroup]:
    graph = trace(network, lambda: network(x))
    return smooth_groups(network, graph, place_quantizers(graph, PlacementSettings()))


class _Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        y = self.norm1(x)
        q, k, v = (m(y).view(batch, length, self.heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(y)
        return x + self.down(F.relu(self.up(self.norm2(x))))


def test_factors_even_out_activation_and_weight() -> None:
    # With alpha 1/2 both end up at the geometric mean of the two: 16 and 1 at 4, 1 and 4 at 2.
    activation, weight = torch.tensor([16.0, 1.0]), torch.tensor([1.0, 4.0])
    factors = smoothing_factors(activation, weight, 0.5)
    assert (activation / factors).tolist() == [4.0, 2.0]
    assert (weight * factors).tolist() == [4.0, 2.0]


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, [1.0, 0.25]), (1.0, [16.0, 1.0])])
def test_alpha_evens_out_one_of_them_at_its_ends(alpha: float, expected: list[float]) -> None:
    assert smoothing_factors(torch.tensor([16.0, 1.0]), torch.tensor([1.0, 4.0]), alpha).tolist() == expected


def test_channel_of_zeros_stays() -> None:
    assert smoothing_factors(torch.tensor([0.0, 5.0]), torch.tensor([2.0, 0.0]), 0.5).tolist() == [1.0, 1.0]


def test_norm_and_weight_take_the_factors_worked_by_hand() -> None:
    network = nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([16.0, 1.0]))
        network[0].bias.copy_(torch.tensor([8.0, 2.0]))
        network[1].weight.copy_(torch.tensor([[1.0, -4.0], [0.5, 1.0]]))
    # The norm gives 1 and -1, so that the channels are 16 + 8 = 24 and -1 + 2 = 1 in one sample, -8 and 3 in the other.
    x = torch.tensor([[1e3, -1e3], [-1e3, 1e3]])
    (group,) = _groups(network, x)
    data = CalibrationData(batches=[x], forward=network, batch_size=len)
    smooth(network, [group], [], data, alpha=0.5, num_samples=2)
    factors = torch.tensor([24.0, 3.0]).sqrt() / torch.tensor([1.0, 4.0]).sqrt()
    torch.testing.assert_close(network[0].weight.detach(), torch.tensor([16.0, 1.0]) / factors)
    torch.testing.assert_close(network[0].bias.detach(), torch.tensor([8.0, 2.0]) / factors)
    torch.testing.assert_close(network[1].weight.detach(), torch.tensor([[1.0, -4.0], [0.5, 1.0]]) * factors)


def test_groups_of_a_transformer_block() -> None:
    groups = _groups(_Block().eval(), torch.randn(2, 5, 32))
    assert [(group.divided, group.layers) for group in groups] == [
        (("norm1.weight", "norm1.bias"), ("q", "k", "v")),
        (("norm2.weight", "norm2.bias"), ("up",)),
        (("up.weight", "up.bias"), ("down",)),
    ]


class _RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


def test_norm_spelled_out_is_found() -> None:
    (group,) = _groups(nn.Sequential(_RMSNorm(8), nn.Linear(8, 4)).eval(), torch.randn(2, 8))
    assert group.divided == ("0.weight",)


class _Residual(nn.Module):
    """The output of the norm is also added further on."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.linear(y) + y


class _Heads(nn.Module):
    """A reshape between norm and layer mixes the channels up."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x).view(len(x), 2, 4))


class _Tied(nn.Module):
    """The weight behind the norm serves elsewhere too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.linear = nn.Embedding(6, 8), nn.LayerNorm(8), nn.Linear(8, 6, bias=False)
        self.linear.weight = self.embedding.weight

    def forward(self, index: Tensor) -> Tensor:
        return self.linear(self.norm(self.embedding(index)))


@pytest.mark.parametrize(
    ("network", "x"),
    [
        pytest.param(_Residual(), torch.randn(2, 8), id="also added"),
        pytest.param(_Heads(), torch.randn(2, 8), id="reshaped"),
        pytest.param(_Tied(), torch.arange(6), id="tied"),
        pytest.param(nn.Sequential(nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 8)), torch.randn(2, 8)),
        pytest.param(nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)), torch.randn(2, 8), id="gelu between"),
    ],
)
def test_what_cannot_be_divided_is_left_alone(network: nn.Module, x: Tensor) -> None:
    assert _groups(network.eval(), x) == []


def _with_outliers(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    network = nn.Sequential(_Block(), _Block(), nn.LayerNorm(32), nn.Linear(32, 10)).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight[[3, 17]] *= 40.0
    return network


def _error(network: nn.Module, data: list[Tensor], **initializer: Any) -> float:
    quantized = copy.deepcopy(network)
    compress(quantized, {"compression": {"algorithm": "quantization", "initializer": initializer}}, data)
    with torch.no_grad():
        outputs, expected = quantized(data[0]), network(data[0])
    return ((outputs - expected).square().mean() / expected.square().mean()).sqrt().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_error_of_a_transformer_with_outliers_falls(seed: int) -> None:
    network = _with_outliers(seed)
    data = [torch.randn(16, 6, 32) for _ in range(4)]
    assert _error(network, data, smooth_quant={"alpha": 0.5}) < 0.9 * _error(network, data)


def test_float_network_computes_the_same() -> None:
    network = _with_outliers(0)
    smoothed, data = copy.deepcopy(network), [torch.randn(16, 6, 32)]
    compress(smoothed, {"compression": {"algorithm": "quantization", "initializer": {"smooth_quant": {}}}}, data)
    strip(smoothed)
    assert not torch.equal(smoothed[0].norm1.weight, network[0].norm1.weight)
    torch.testing.assert_close(smoothed(data[0]), network(data[0]), rtol=1e-4, atol=1e-4)


def test_processes_take_the_largest_value_of_all() -> None:
    x = torch.randn(8, 2)
    weights = []
    for mine, others in ((x, None), (x[:4], x[4:])):
        torch.manual_seed(0)
        network = nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 2)).eval()
        largest = None if others is None else network[0](others).abs().amax(0).detach().double()

        def reduce(values: Tensor, operation: str, largest: Tensor | None = largest) -> Tensor:
            if operation == "sum":
                return values
            assert operation == "max"
            assert largest is not None
            return torch.maximum(values, largest)

        data = CalibrationData(
            batches=[mine], forward=network, batch_size=len, reduce=None if others is None else reduce
        )
        smooth(network, _groups(network, x), [], data, alpha=0.5, num_samples=8)
        weights.append(network[1].weight.detach())
    assert torch.equal(*weights)
