from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from lightning_nncf import compress
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.errors import ConfigError, HookError, InitializationError

CONFIG: dict[str, Any] = {
    "compression": {
        "algorithm": "quantization",
        "initializer": {"range": {"num_init_samples": 4}, "batchnorm_adaptation": {"num_bn_adaptation_samples": 4}},
    }
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 8, 8, generator=generator) for _ in range(2)]


def test_output_lies_near_the_float_output() -> None:
    net, x = network(), batches()[0]
    reference = copy.deepcopy(net)
    compressed = compress(net, CONFIG, batches())
    plain = next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    for name, value in plain.state_dict().items():
        reference[1].state_dict()[name].copy_(value)
    with torch.no_grad():
        difference = (net.eval()(x) - reference.eval()(x)).abs().max()
    assert 0 < difference < 0.05
    assert compressed.stage.name == "FULLY_COMPRESSED"


def test_batch_norm_is_adapted_and_modes_are_kept() -> None:
    net = network().train()
    compress(net, CONFIG, batches())
    assert int(net[1].num_batches_tracked) == 2
    assert all(module.training for module in net.modules() if not type(module).__module__.startswith("lightning_nncf"))


def test_random_generators_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout())
    torch.manual_seed(3)
    compress(net, CONFIG, batches())
    assert torch.equal(torch.rand(2), expected)


def test_inputs_come_from_input_info_when_nothing_else_is_given() -> None:
    net = network()
    compressed = compress(net, {**CONFIG, "input_info": {"sample_size": [1, 3, 8, 8]}})
    assert not compressed.initialized
    assert compressed.stage.name == "UNCOMPRESSED"
    (x,), _ = compressed.example_inputs()
    assert x.shape == (1, 3, 8, 8)


def test_uninitialized_network_computes_as_before() -> None:
    net, x = network().eval(), batches()[0]
    expected = net(x)
    compress(net, CONFIG, example_inputs=x)
    assert torch.equal(net(x), expected)


def test_no_inputs_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="example_inputs"):
        compress(network(), CONFIG)


def test_empty_data_is_an_error_and_leaves_the_network_plain() -> None:
    net = network()
    with pytest.raises(InitializationError, match="no batch"):
        compress(net, CONFIG, [])
    assert not [name for name in net.state_dict() if "lnncf_" in name]


def test_compressing_twice_is_an_error() -> None:
    net = network()
    compress(net, CONFIG, batches())
    with pytest.raises(HookError, match="compressed already"):
        compress(net, CONFIG, batches())


def test_structure_is_plain_and_rebuilds_the_same_function() -> None:
    net, x = network(), batches()[0]
    compressed = compress(net, CONFIG, batches())
    structure = pickle.loads(pickle.dumps(compressed.structure()))
    other = network()
    again = CompressedNetwork.restore(other, NNCFConfig.load(CONFIG), structure)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(other.eval()(x), net.eval()(x))
    assert again.structure() == compressed.structure()


def test_strip_restores_the_plain_network() -> None:
    net = network()
    keys = list(net.state_dict())
    compressed = compress(net, CONFIG, batches())
    assert compressed.strip() is net
    assert list(net.state_dict()) == keys


def test_multiplier_scales_the_gradients_of_ranges_alone() -> None:
    def gradients(**extra: Any) -> dict[str, torch.Tensor]:
        net = network()
        compress(net, {**CONFIG, **extra}, batches())
        net(batches()[0]).square().sum().backward()
        return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}

    plain, scaled = gradients(), gradients(compression_lr_multiplier=0.5)
    for name, gradient in plain.items():
        factor = 0.5 if "lnncf_" in name else 1.0
        torch.testing.assert_close(scaled[name], gradient * factor)


def test_statistics_count_bits_and_size_by_hand() -> None:
    compressed = compress(network(), CONFIG, batches())
    statistics = compressed.statistics()
    weights, rest = 3 * 4 * 9 + 144 * 2, 4 + 8 + 2
    assert statistics["weight_bits_8"] == 2
    assert statistics["quantized_share"] == pytest.approx(weights / (weights + rest))
    assert statistics["size_mb"] == pytest.approx((weights + 4 * rest) / 1e6)


def test_rows_name_every_place() -> None:
    compressed = compress(network(), CONFIG, batches())
    rows = compressed.rows()
    assert [row["place"] for row in rows if row["kind"] == "weight"] == ["0/conv2d:0|weight1", "4/linear:0|weight1"]
    assert all(row["low"] < row["high"] for row in rows)


class Tied(nn.Module):
    """A language model whose table is also its output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.table(tokens)))


def test_tied_weight_has_one_quantizer_that_acts_at_both_layers() -> None:
    torch.manual_seed(0)
    net, tokens = Tied(), torch.arange(7)[None]
    compressed = compress(net, CONFIG, [tokens])
    inserted: Any = compressed.algorithms[0].inserted  # type: ignore[attr-defined]
    seen: list[torch.Tensor] = []
    net.head.register_forward_pre_hook(lambda module, _: seen.append(module.weight))
    with torch.no_grad():
        net(tokens)
    weight = net.table.weight
    quantizer = next(
        q
        for q, p in zip(inserted.quantizers, inserted.setup.points, strict=True)
        if p.kind == "weight" and p.shape == (7, 4)
    )
    assert inserted.setup.count("weight") == 2
    assert torch.equal(seen[0], quantizer(weight))
    assert not torch.equal(seen[0], weight)
