"""Movement sparsity of linear layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_nncf import compress
from lightning_nncf.algorithms.sparsity.movement_functional import importance_loss, score_mask_ste
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.errors import ConfigError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))


def batch() -> torch.Tensor:
    return torch.randn(16, 8, generator=torch.Generator().manual_seed(0))


def make(net: nn.Module, structures: Any = (), **params: Any) -> CompressedNetwork:
    settings = {
        "warmup_start_epoch": 1,
        "warmup_end_epoch": 3,
        "importance_regularization_factor": 0.5,
        "enable_structured_masking": False,
        **params,
    }
    section = {"algorithm": "movement_sparsity", "params": settings, "sparse_structure_by_scopes": list(structures)}
    return compress(net, {"compression": section}, [batch()])


def train(compressed: CompressedNetwork, epochs: int, steps: int = 5) -> None:
    net = compressed.network.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    target = torch.arange(16) % 4
    compressed.announce_steps(steps)
    for _ in range(epochs):
        compressed.epoch_step()
        for _ in range(steps):
            compressed.step()
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(batch()), target)
            own = compressed.loss()
            (loss if own is None else loss + own).backward()
            optimizer.step()


def test_gradient_of_a_score_is_gradient_times_weight() -> None:
    weight, scores = torch.tensor([2.0, -3.0]), torch.tensor([1.0, -1.0], requires_grad=True)
    (weight * score_mask_ste(scores, 0.0) * torch.tensor([5.0, 7.0])).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [10.0, -21.0]


def test_loss_by_hand() -> None:
    scores = [torch.tensor([0.0, 0.0]), torch.log(torch.tensor([3.0]))]
    # (0.2 * 0.5 * 0.5 * 1 + 0.2 * 0.75 * 0.5 * 4) / 2
    assert float(importance_loss(scores, [1, 4], 0.2)) == pytest.approx((0.05 + 0.3) / 2)


def test_nothing_is_dropped_before_the_warmup_and_nothing_changes_after_it() -> None:
    net = network()
    compressed = make(net)
    algorithm = compressed.algorithms[0]
    train(compressed, 1)
    assert (algorithm.sparsity(), compressed.stage) == (0.0, CompressionStage.UNCOMPRESSED)
    assert compressed.present_loss() is None
    train(compressed, 2)
    assert compressed.stage == CompressionStage.PARTIALLY_COMPRESSED
    train(compressed, 1)
    frozen = [module.kept().clone() for module in algorithm.masks]
    assert 0.1 < algorithm.sparsity() < 0.99
    train(compressed, 2)
    assert all(torch.equal(module.kept(), mask) for module, mask in zip(algorithm.masks, frozen, strict=True))
    assert compressed.stage == CompressionStage.FULLY_COMPRESSED


def test_structures_live_or_die_together() -> None:
    structures = [
        {"mode": "block", "sparse_factors": [4, 2], "target_scopes": "0"},
        {"mode": "per_dim", "axis": 0, "target_scopes": "2"},
    ]
    compressed = make(network(), structures)
    first, second = compressed.algorithms[0].masks
    assert (first.scores.shape, second.scores.shape) == ((3, 4), (4, 1))
    train(compressed, 4)
    blocks = first.kept().reshape(3, 4, 4, 2).permute(0, 2, 1, 3).reshape(12, 8).float().mean(1)
    assert set(blocks.tolist()) <= {0.0, 1.0}
    assert set(second.kept().float().mean(1).tolist()) <= {0.0, 1.0}


def test_some_weights_of_every_layer_survive() -> None:
    compressed = make(network(), final_importance_threshold=1e6)
    train(compressed, 4)
    assert all(bool(module.kept().any()) for module in compressed.algorithms[0].masks)


def test_restored_networks_compute_the_same() -> None:
    net = network()
    compressed = make(net)
    train(compressed, 2)
    other = network()
    restored = CompressedNetwork.restore(other, compressed.config, compressed.structure())
    restored.load_state_dict(compressed.state_dict())
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(batch()), other.eval()(batch()))


@pytest.mark.parametrize(
    ("structures", "params", "message"),
    [
        pytest.param([], {"warmup_end_epoch": 1}, "must be greater than `warmup_start_epoch`", id="end before start"),
        pytest.param([{"mode": "block"}], {}, "two numbers", id="block without size"),
        pytest.param([{"mode": "per_dim"}], {}, "axis` is required", id="dimension without axis"),
        pytest.param(
            [{"mode": "block", "sparse_factors": [5, 5], "target_scopes": "0"}], {}, "cannot be divided", id="size"
        ),
    ],
)
def test_wrong_settings_are_refused(structures: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(network(), structures, **params)
