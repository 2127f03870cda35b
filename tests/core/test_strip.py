"""What is left of a compressed network once everything that was inserted is out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lightning_nncf import compress, export_and_verify
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.errors import ConfigError, HookError
from lightning_nncf.hooks.insertion import inserted
from tests.core.sections import ALGORITHMS, COMBINATIONS, INT8, MAGNITUDE, binarization, config_of, quantization


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(144, 5),
    )


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, 4, 6, 6, generator=generator) for _ in range(4)]


def train(compressed: CompressedNetwork, data: list[Any], epochs: int = 4) -> None:
    network = compressed.network
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    compressed.attach([optimizer])
    for _ in range(epochs):
        compressed.epoch_step()
        network.train()
        for x in data:
            compressed.step()
            optimizer.zero_grad()
            (network(x).square().mean() + compressed.loss()).backward()
            optimizer.step()
    network.eval()


def without_activations(network: nn.Module, x: Any) -> Tensor:
    """Run the compressed network with quantizers and binarizers of activations switched off."""
    acting = [m for site, _, m in inserted(network) if site.kind != "weight" and getattr(m, "enabled", False)]
    for module in acting:
        module.enabled = False
    with torch.no_grad():
        output: Tensor = network(x)
    for module in acting:
        module.enabled = True
    return output


@pytest.mark.parametrize("name", [*ALGORITHMS, *COMBINATIONS])
def test_stripped_network_computes_with_the_compressed_weights(name: str) -> None:
    net, data = network(), batches()
    if name == "const":
        with torch.no_grad():
            net[3].weight.masked_fill_(net[3].weight.abs() < 0.05, 0.0)
    compressed = compress(net, config_of(name), data)
    train(compressed, data)
    expected = without_activations(net, data[0])
    latent = {key: p.clone() for key, p in net.named_parameters() if "lnncf_" not in key}
    parameters = {key: p for key, p in net.named_parameters() if "lnncf_" not in key}
    assert compressed.strip() is net
    with torch.no_grad():
        torch.testing.assert_close(net(data[0]), expected, rtol=1e-5, atol=1e-6)
    assert not [key for key in net.state_dict() if "lnncf_" in key]
    for key, parameter in net.named_parameters():
        assert parameter is parameters[key], key
        assert (parameter.dtype, parameter.requires_grad) == (torch.float32, True)
    changed = {key for key, value in latent.items() if not torch.equal(parameters[key], value)}
    if not name.startswith(("pruning", "const")) or name == "pruning_int8":
        assert changed
    assert changed <= {"0.weight", "3.weight", "7.weight"}


@pytest.mark.parametrize("name", ["magnitude_int8", "rb_int8", "xnor", "shrunk_magnitude_int8"])
def test_latent_weights_are_given_on_request(name: str) -> None:
    net, data = network(), batches()
    compressed = compress(net, config_of(name), data)
    train(compressed, data)
    latent = {key: p.clone() for key, p in net.named_parameters() if "lnncf_" not in key}
    compressed.strip(weights="latent")
    assert {key: torch.equal(p, latent[key]) for key, p in net.named_parameters()} == dict.fromkeys(latent, True)


def test_other_weights_than_these_two_are_refused_and_nothing_is_taken_out() -> None:
    net = network()
    compressed = compress(net, config_of("int8"), batches())
    with pytest.raises(ConfigError, match=r"'effective' or 'latent', got 'both'"):
        compressed.strip(weights="both")  # type: ignore[arg-type]
    assert any(True for _ in inserted(net))


def test_weights_in_half_of_the_int8_range_have_at_most_128_values_per_channel() -> None:
    net = network()
    compress(net, config_of("int8"), batches()).strip()
    values = [len(weights.unique()) for layer in (net[3], net[7]) for weights in layer.weight]
    assert 16 < max(values) <= 128 < net[7].weight[0].numel()


def test_adjusted_padding_is_zero_again() -> None:
    section = quantization(weights={"bits": 4}, activations={"bits": 4, "mode": "symmetric"})
    torch.manual_seed(0)
    net, data = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)), batches()
    compressed = compress(net, {"target_device": "VPU", "compression": section}, data)
    train(compressed, data, epochs=1)
    assert any(algorithm == "padding" for _, algorithm, _ in inserted(net))
    expected = without_activations(net, data[0])
    compressed.strip()
    with torch.no_grad():
        torch.testing.assert_close(net(data[0]), expected, rtol=1e-5, atol=1e-6)


class Text(nn.Module):
    """A table that is also the output layer, with attention and a recurrent layer between."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.cell = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        out: Tensor = self.head(self.cell(x)[0])
        return out


@pytest.mark.parametrize(
    ("sections", "kept"),
    [
        # Recurrent layers have no mask.
        pytest.param([INT8], [False, False, False], id="int8"),
        pytest.param([MAGNITUDE], [False, True, False], id="magnitude"),
        pytest.param([MAGNITUDE, INT8], [False, False, False], id="both"),
    ],
)
def test_tied_attention_and_recurrent_weights_are_written_once(
    sections: list[dict[str, Any]], kept: list[bool]
) -> None:
    torch.manual_seed(0)
    net, data = Text(), [torch.arange(7)[None], torch.arange(7).flip(0)[None]]
    compressed = compress(net, {"compression": sections}, data)
    train(compressed, data)
    expected, attention = without_activations(net, data[0]), net.attention.out_proj.weight
    latent = [weight.clone() for weight in (net.table.weight, net.cell.weight_hh_l0, attention)]
    compressed.strip()
    with torch.no_grad():
        torch.testing.assert_close(net(data[0]), expected, rtol=1e-5, atol=1e-6)
    assert net.head.weight is net.table.weight
    now = [net.table.weight, net.cell.weight_hh_l0, attention]
    assert [torch.equal(*pair) for pair in zip(now, latent, strict=True)] == kept


def test_weight_of_a_parametrization_is_written_through_it() -> None:
    torch.manual_seed(0)
    net, data = network(), batches()
    parametrizations.weight_norm(net[3])
    compressed = compress(net, {"compression": INT8}, data)
    train(compressed, data, epochs=1)
    with torch.no_grad():
        expected = net[3].weight.clone()
    compressed.strip()
    torch.testing.assert_close(net[3].weight, expected, rtol=1e-5, atol=1e-7)
    assert sorted(dict(net[3].named_parameters())) == [
        "bias",
        "parametrizations.weight.original0",
        "parametrizations.weight.original1",
    ]


def test_weight_that_no_parametrization_gives_back_keeps_its_own_value_and_is_named() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(parametrizations.orthogonal(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 2))
    plain = net[0].weight.detach().clone()
    compressed = compress(net, {"compression": INT8}, [torch.randn(4, 6)])
    with pytest.warns(UserWarning, match=r"'0.weight': its parametrization cannot give .*remove_parametrizations"):
        compressed.strip()
    torch.testing.assert_close(net[0].weight, plain)


def test_what_cannot_stay_is_said_by_algorithm(caplog: pytest.LogCaptureFixture) -> None:
    compressed = compress(network(), {"compression": [MAGNITUDE, INT8]}, batches())
    with caplog.at_level(logging.INFO):
        compressed.strip()
    (message,) = [record.message for record in caplog.records if "stripped" in record.message]
    assert message.endswith("cannot stay (4 of `quantization`)")


@pytest.mark.parametrize("sections", [[MAGNITUDE], [binarization("xnor")]], ids=["masks", "not-begun"])
def test_nothing_is_said_where_activations_stay_as_they_are(
    sections: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    compressed = compress(network(), {"compression": sections}, batches())
    with caplog.at_level(logging.INFO):
        compressed.strip()
    assert not [record.message for record in caplog.records if "stripped" in record.message]


def test_stripped_network_trains_on_without_masks() -> None:
    net, data = network(), batches()
    compressed = compress(net, config_of("pruning"), data)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    compressed.attach([optimizer])
    compressed.epoch_step()
    compressed.strip()
    pruned = (net[0].weight == 0).flatten(1).all(1)
    assert bool(pruned.any())
    net[0].weight.square().sum().backward()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    optimizer.step()
    assert bool((net[0].weight[pruned] == -0.1).all())


def test_stripped_network_is_neither_saved_nor_exported(tmp_path: Path) -> None:
    net, data = network(), batches()
    compressed = compress(net, config_of("int8"), data)
    compressed.strip()
    for action in (
        lambda: compressed.save(tmp_path / "network.pt"),
        lambda: export_and_verify(compressed, tmp_path / "model.onnx", verify=False),
        compressed.initialize_ranges,
    ):
        with pytest.raises(HookError, match="was stripped"):
            action()
    assert not list(tmp_path.iterdir())
    assert compress(net, config_of("int8"), data).initialized


def test_network_that_is_only_pruned_is_not_compressed_again() -> None:
    net, data = network(), batches()
    compress(net, config_of("pruning"), data)
    with pytest.raises(HookError, match="is compressed already"):
        compress(net, config_of("int8"), data)
