"""Magnitude sparsity at work on networks."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.errors import ConfigError, ScopeError
from tests.algorithms.sparsity.networks import batch, make, multistep, network


def magnitude(**params: Any) -> dict[str, Any]:
    return {"algorithm": "magnitude_sparsity", "params": params}


def masks(compressed: CompressedNetwork) -> list[torch.Tensor]:
    return [module.kept().clone() for module in compressed.algorithms[0].masks]


def test_forward_uses_masked_weights_and_parameters_stay() -> None:
    net = network()
    before = {name: p.clone() for name, p in net.named_parameters()}
    compressed = make(magnitude(**multistep(0.5, 0.7)), net)
    compressed.epoch_step()
    reference = network()
    for place, mask in zip(compressed.algorithms[0].places, masks(compressed), strict=True):
        with torch.no_grad():
            reference.get_parameter(place.name).mul_(mask)
    reference.load_state_dict({**net.state_dict(), **reference.state_dict()}, strict=False)
    torch.testing.assert_close(net.eval()(batch()), reference.eval()(batch()))
    for name, value in before.items():
        assert torch.equal(net.get_parameter(name), value)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.77, 0.999])
def test_sparsity_is_within_one_weight_of_the_level(level: float) -> None:
    compressed = make(magnitude(**multistep(0.0, level)))
    compressed.epoch_step()
    compressed.epoch_step()
    total = 288 + 576 + 80
    assert abs(compressed.algorithms[0].sparsity() * total - level * total) <= 1
    assert compressed.stage == CompressionStage.FULLY_COMPRESSED


def test_initial_level_acts_before_the_first_epoch() -> None:
    compressed = make({**magnitude(sparsity_target=0.8), "sparsity_init": 0.25})
    assert compressed.algorithms[0].sparsity() == pytest.approx(0.25, abs=1 / 944)
    assert compressed.stage == CompressionStage.PARTIALLY_COMPRESSED


def test_masked_weights_get_no_gradient() -> None:
    net = network()
    compressed = make(magnitude(**multistep(0.5, 0.5)), net)
    net(batch()).sum().backward()
    kept = masks(compressed)[2]
    gradient = net[7].weight.grad
    assert bool((gradient[~kept] == 0).all())
    assert bool((gradient[kept] != 0).any())


def test_weights_that_grow_under_the_mask_come_back() -> None:
    net = network()
    compressed = make(magnitude(**multistep(0.5, 0.5)), net)
    dropped = ~masks(compressed)[2]
    with torch.no_grad():
        net[7].weight[dropped] = 9.0
    compressed.epoch_step()
    assert bool(masks(compressed)[2][dropped].all())


def test_masks_are_unchanged_after_freeze() -> None:
    net = network()
    compressed = make(magnitude(**multistep(0.5, 0.7, freeze=1)), net)
    compressed.epoch_step()
    compressed.epoch_step()
    frozen = masks(compressed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
    for _ in range(3):
        compressed.epoch_step()
    assert all(torch.equal(a, b) for a, b in zip(masks(compressed), frozen, strict=True))


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
def test_restored_networks_go_on_as_if_nothing_had_happened(epochs: int) -> None:
    """Structure, state and weights through a file, as in a checkpoint; then weights change and masks follow or not."""
    section = magnitude(**multistep(0.3, 0.5, 0.7, freeze=3))
    net = network()
    compressed = make(section, net)
    for _ in range(epochs):
        compressed.epoch_step()
    file = io.BytesIO()
    torch.save([compressed.structure(), compressed.state_dict(), net.state_dict()], file)
    file.seek(0)
    structure, state, weights = torch.load(file, weights_only=True)
    other = network(seed=1)
    restored = CompressedNetwork.restore(other, compressed.config, structure)
    restored.load_state_dict(state)
    other.load_state_dict(weights)
    for each in (net, other):
        with torch.no_grad():
            for index, parameter in enumerate(each.parameters()):
                generator = torch.Generator().manual_seed(index)
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(masks(compressed), masks(restored), strict=True))
        compressed.epoch_step()
        restored.epoch_step()
    assert torch.equal(net.eval()(batch()), other.eval()(batch()))
    assert restored.stage == compressed.stage


def test_local_levels_hold_for_their_layers() -> None:
    params = {
        "schedule": "polynomial",
        "power": 1,
        "sparsity_target_epoch": 2,
        "sparsity_target": 0.5,
        "sparsity_level_setting_mode": "local",
        "sparsity_levels": {"0": 0.25, "7": 0.75},
    }
    compressed = make(magnitude(**params))
    reached = []
    for _ in range(3):
        compressed.epoch_step()
        reached.append([float((~mask).float().mean()) for mask in masks(compressed)])
    assert reached[0] == [0.0, 0.0, 0.0]
    assert reached[1] == pytest.approx([0.125, 0.0, 0.375], abs=1 / 80)
    assert reached[2] == pytest.approx([0.25, 0.0, 0.75], abs=1 / 80)
    assert compressed.stage == CompressionStage.FULLY_COMPRESSED


def test_strip_writes_the_zeros_into_the_plain_network() -> None:
    net = network()
    compressed = make(magnitude(**multistep(0.6, 0.6)), net)
    expected = net.eval()(batch())
    plain = compressed.strip()
    assert not [name for name in plain.state_dict() if "lnncf" in name]
    torch.testing.assert_close(plain(batch()), expected)
    zeros = sum(int((plain.get_parameter(name) == 0).sum()) for name in ("0.weight", "3.weight", "7.weight"))
    assert abs(zeros - 0.6 * 944) <= 1


def test_copies_are_independent() -> None:
    net = network()
    compressed = make(magnitude(**multistep(0.5, 0.9)), net)
    twin = copy.deepcopy(net).eval()
    expected = twin(batch())
    compressed.epoch_step()
    compressed.epoch_step()
    assert torch.equal(twin(batch()), expected)
    assert not torch.equal(net.eval()(batch()), expected)


def test_ignored_scopes_stay_dense() -> None:
    compressed = make({**magnitude(**multistep(0.5, 0.5)), "ignored_scopes": ["0", "7"]})
    assert [place.name for place in compressed.algorithms[0].places] == ["3.weight"]


def test_a_shared_weight_has_one_mask() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(6, 4)
            self.head = nn.Linear(4, 6, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(x))

    torch.manual_seed(0)
    net = Tied()
    from lightning_nncf import compress

    data = [torch.tensor([[1, 2, 3]])]
    compressed = compress(net, {"compression": magnitude(**multistep(0.5, 0.5))}, data)
    assert len(compressed.algorithms[0].masks) == 1
    table = net.embed.weight.detach() * masks(compressed)[0]
    torch.testing.assert_close(net(data[0]), table[data[0]] @ table.T)


def test_statistics_and_rows_count_exact_zeros() -> None:
    net = network()
    compressed = make(magnitude(**multistep(0.5, 0.5)), net)
    statistics = compressed.statistics()
    total = sum(p.numel() for name, p in net.named_parameters() if "lnncf" not in name)
    zeros = sum(int((~mask).sum()) for mask in masks(compressed))
    # The bias of batch norm is zero at first and counts too.
    assert statistics["model_sparsity_level"] == pytest.approx((zeros + 8) / total)
    assert statistics["sparsity_level"] == pytest.approx(zeros / 944)
    assert statistics["sparsity_target"] == pytest.approx(0.5)
    rows = compressed.rows()
    assert [row["parameter"] for row in rows] == ["0.weight", "3.weight", "7.weight"]
    assert sum(row["sparsity"] * row["share"] for row in rows) == pytest.approx(zeros / 944)
    assert len({row["threshold"] for row in rows}) == 1


def test_frozen_layers_are_refused_by_name() -> None:
    net = network()
    net[3].weight.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"frozen.*'3/conv2d:0'.*ignored_scopes"):
        make(magnitude(), net)


def test_a_network_without_weights_inside_the_scopes_is_refused() -> None:
    with pytest.raises(ConfigError, match="finds no weight"):
        make({**magnitude(), "target_scopes": ["1"]})


def test_levels_by_scope_must_match() -> None:
    params = {"sparsity_level_setting_mode": "local", "sparsity_levels": {"nine": 0.5}}
    with pytest.raises(ScopeError, match="nine"):
        make(magnitude(**params))
