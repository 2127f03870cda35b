from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import nn

from lightning_nncf import compress
from lightning_nncf.algorithms.pruning import FilterPruning
from lightning_nncf.algorithms.pruning import algorithm as module
from lightning_nncf.algorithms.pruning.latency import latency
from lightning_nncf.algorithms.pruning.measured import rate_for_latency
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.errors import ConfigError, ScopeError
from tests.algorithms.pruning.networks import IMAGE, Residual, Transformer


class Wide(nn.Sequential):
    """Three convolutions of 32 filters; the last one is the output."""

    def __init__(self) -> None:
        layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(32, 4, 1))


def prune(network: nn.Module, *, scopes: Any = (), data: Any = None, **params: Any) -> CompressedNetwork:
    section = {
        "algorithm": "filter_pruning",
        "ignored_scopes": list(scopes),
        "params": {"grouping": "full", "schedule": "baseline", **params},
    }
    return compress(network, {"compression": section}, data, example_inputs=torch.rand(IMAGE))


def test_levels_follow_the_published_schedule_and_freeze() -> None:
    section = {"algorithm": "filter_pruning", "pruning_init": 0.1}
    section["params"] = {
        "grouping": "full", "schedule": "exponential_with_bias", "pruning_target": 0.7, "num_init_steps": 3,
        "pruning_steps": 5,
    }  # fmt: skip
    compressed = compress(Wide(), {"compression": section}, [torch.rand(IMAGE)])
    pruning = compressed.algorithms[0]
    assert isinstance(pruning, FilterPruning)
    levels, frozen = [], []
    for _ in range(10):
        compressed.epoch_step()
        levels.append(pruning.scheduler.level)
        frozen.append(pruning.scheduler.frozen)
    assert levels == pytest.approx([0, 0, 0, 0.1, 0.6489741, 0.6956869, 0.6996617, 0.7, 0.7, 0.7], abs=1e-6)
    assert frozen == [False] * 8 + [True, True]


def test_stages_go_from_uncompressed_to_fully_compressed() -> None:
    compressed = prune(Wide(), data=[torch.rand(IMAGE)], schedule="exponential", num_init_steps=1, pruning_steps=3)
    stages = []
    for _ in range(4):
        compressed.epoch_step()
        stages.append(compressed.stage)
    assert stages == [
        CompressionStage.UNCOMPRESSED,
        CompressionStage.UNCOMPRESSED,
        CompressionStage.PARTIALLY_COMPRESSED,
        CompressionStage.FULLY_COMPRESSED,
    ]


@pytest.mark.parametrize("all_weights", [False, True])
def test_flops_target_is_met_and_hardly_exceeded(all_weights: bool) -> None:
    torch.manual_seed(0)
    compressed = prune(Wide(), pruning_flops_target=0.5, all_weights=all_weights)
    compressed.epoch_step()
    left = compressed.statistics()["flops_ratio"]
    assert left <= 0.5
    assert left > (0.48 if all_weights else 0.38)


def test_masks_do_not_change_after_freeze() -> None:
    network = Wide()
    compressed = prune(network)
    compressed.epoch_step()
    pruning = compressed.algorithms[0]
    assert isinstance(pruning, FilterPruning)
    masks = copy.deepcopy(pruning.masks)
    with torch.no_grad():
        network[0].weight.copy_(torch.rand(32, 3, 3, 3))
    compressed.epoch_step()
    assert all(torch.equal(a, b) for a, b in zip(masks, pruning.masks, strict=True))
    assert not network[0].weight[~masks[0]].any()


def test_optimizer_that_moves_masked_weights_is_corrected_after_its_step() -> None:
    network = Wide()
    compressed = prune(network, zero_grad=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    compressed.attach([optimizer])
    compressed.epoch_step()
    network(torch.rand(IMAGE)).sum().backward()
    network[0].weight.grad = torch.ones_like(network[0].weight)
    optimizer.step()
    assert int((network[0].weight.flatten(1) == 0).all(dim=1).sum()) == 16


def test_frozen_layers_are_pruned_too() -> None:
    network = Wide()
    network[0].requires_grad_(False)
    compressed = prune(network)
    compressed.epoch_step()
    assert int((network[0].weight.flatten(1) == 0).all(dim=1).sum()) == 16
    assert compressed.exportable()[0].out_channels == 16


def test_structure_and_state_bring_a_shrunk_network_back() -> None:
    torch.manual_seed(0)
    network = Wide()
    compressed = prune(network, shrink_at=0)
    compressed.attach([])
    compressed.epoch_step()
    structure, state = json.loads(json.dumps([compressed.structure(), compressed.state_dict()]))
    again = Wide()
    restored = CompressedNetwork.restore(again, compressed.config, structure)
    restored.load_state_dict(state)
    again.load_state_dict(network.state_dict())
    x = torch.rand(IMAGE)
    assert torch.equal(again(x), network(x))
    assert again[2].in_channels == 16
    assert restored.statistics() == compressed.statistics()


def test_exported_copy_is_small_and_the_network_is_not_touched() -> None:
    network = Wide()
    compressed = prune(network)
    compressed.epoch_step()
    copied = compressed.exportable()
    assert (copied[0].out_channels, network[0].out_channels) == (16, 32)
    x = torch.rand(IMAGE)
    torch.testing.assert_close(copied(x), network(x), rtol=1e-5, atol=1e-5)


def test_strip_leaves_a_plain_network_that_computes_the_same() -> None:
    network = Wide()
    compressed = prune(network)
    compressed.epoch_step()
    x = torch.rand(IMAGE)
    expected = network(x)
    compressed.strip()
    assert torch.equal(network(x), expected)
    assert not any(parameter._backward_hooks for parameter in network.parameters())


def test_ignored_scope_keeps_its_layer_and_is_the_reason() -> None:
    compressed = prune(Wide(), scopes=["0"])
    rows = {row["parameter"]: row for row in compressed.rows()}
    assert rows["0.weight"]["reason"] == "ignored scope (0/conv2d:0)"
    assert any("0.weight whole: ignored scope" in line for line in compressed.algorithms[0].summary())
    with pytest.raises(ScopeError):
        prune(Wide(), scopes=["absent"])


def test_target_that_cannot_be_met_says_how_far_it_goes_and_what_stays_whole() -> None:
    with pytest.raises(ConfigError, match=r"90\.0% of the FLOPs cannot be removed, at most .*2\.weight: ignored scope"):
        prune(Wide(), scopes=["2"], pruning_flops_target=0.9)


def test_group_that_would_lose_all_filters_is_named() -> None:
    network = Wide()
    with torch.no_grad():
        network[0].weight.mul_(1e-3)
        network[0].weight[0] += 1.0
    compressed = prune(network, pruning_target=0.99, all_weights=True)
    with pytest.raises(ConfigError, match=r"removes every filter of 0\.weight|removes every filter of 2\.weight"):
        compressed.epoch_step()


def test_share_of_each_layer_that_rounds_to_no_filter_is_refused() -> None:
    # 32 - 32 * 0.2 = 25.6 filters, rounded up to 32
    with pytest.raises(ConfigError, match=r"would remove nothing from Wide: .* have 32 filters, .*target: 0\.2"):
        prune(Wide(), pruning_target=0.2)
    assert prune(Wide(), pruning_target=0.25).algorithms[0].groups.groups


def test_network_in_which_nothing_can_be_pruned_is_refused_with_reasons() -> None:
    with pytest.raises(ConfigError, match=r"can prune nothing in Sequential \(0\.weight: output of the network"):
        prune(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_transformers_need_full_grouping_and_then_lose_heads() -> None:
    section = {"algorithm": "filter_pruning", "params": {"grouping": "full", "schedule": "baseline"}}
    compressed = compress(Transformer(), {"compression": section}, example_inputs=torch.rand(2, 5, 8))
    compressed.epoch_step()
    network = compressed.exportable()
    assert network.up.out_features == 8
    section["params"] = {}
    with pytest.raises(ConfigError, match="`grouping: full` allows linear layers"):
        compress(Transformer(), {"compression": section}, example_inputs=torch.rand(2, 5, 8))


def test_latency_target_finds_a_rate_by_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def fake(network: Any, inputs: Any) -> float:
        seen.append(network[0].out_channels)
        return network[0].out_channels / 32

    def with_fake(*arguments: Any) -> float:
        return rate_for_latency(*arguments, measure=fake)

    monkeypatch.setattr(module, "rate_for_latency", with_fake)
    compressed = prune(Wide(), data=[torch.rand(IMAGE)], pruning_latency_target=0.5)
    compressed.epoch_step()
    assert compressed.network[0].weight.flatten(1).any(dim=1).sum() == 16
    assert seen[0] == 32
    with pytest.raises(ConfigError, match="cannot be made 99% faster"):
        prune(Wide(), data=[torch.rand(IMAGE)], pruning_latency_target=0.99)


def test_latency_is_measured_in_onnx_runtime() -> None:
    pytest.importorskip("onnxruntime")
    assert 0 < latency(Residual(), ((torch.rand(IMAGE),), {}), runs=3) < 1


def test_sizes_written_in_the_code_are_found_by_a_rehearsal_and_their_group_stays() -> None:
    class Literal(Wide):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self[1](self[0](x)).view(x.shape[0], 32, 64).unflatten(2, (8, 8))
            return self[4](self[3](self[2](x)))

    compressed = prune(Literal())
    compressed.epoch_step()
    rows = {row["parameter"]: row for row in compressed.rows()}
    assert (rows["0.weight"]["filters_left"], rows["2.weight"]["filters_left"]) == (32, 16)
    assert "the network fails: RuntimeError: shape '[2, 32, 64]' is invalid" in rows["0.weight"]["reason"]


def test_config_is_kept_in_a_checkpoint_and_read_again() -> None:
    compressed = prune(Wide(), pruning_target=0.25)
    saved = compressed.config.model_dump(mode="json", exclude_unset=True)
    assert NNCFConfig.load(saved) == compressed.config
