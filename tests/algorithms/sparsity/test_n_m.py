"""n:m sparsity at work on networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_nncf import compress
from lightning_nncf.core.stage import CompressionStage
from tests.algorithms.sparsity.networks import batch, make, network


def test_two_of_four_input_channels_are_kept_everywhere() -> None:
    net = network()
    compressed = make({"algorithm": "n_m_sparsity"}, net)
    assert compressed.stage == CompressionStage.UNCOMPRESSED
    compressed.epoch_step()
    assert compressed.stage == CompressionStage.FULLY_COMPRESSED
    stripped = compressed.strip()
    for name in ("0.weight", "3.weight", "7.weight"):
        weight = stripped.get_parameter(name)
        counts = (weight != 0).movedim(1, -1).reshape(-1, 4).sum(-1)
        assert set(counts.tolist()) == {2}, name


def test_masks_are_frozen_after_the_first_epoch_by_default() -> None:
    net = network()
    compressed = make({"algorithm": "n_m_sparsity"}, net)
    compressed.epoch_step()
    compressed.epoch_step()
    before = [module.kept().clone() for module in compressed.algorithms[0].masks]
    with torch.no_grad():
        net[7].weight.copy_(torch.randn_like(net[7].weight))
    compressed.epoch_step()
    assert all(torch.equal(a, m.kept()) for a, m in zip(before, compressed.algorithms[0].masks, strict=True))


def test_a_schedule_makes_groups_sparse_bit_by_bit() -> None:
    params = {"schedule": "polynomial", "power": 1, "sparsity_target_epoch": 4, "sparsity_freeze_epoch": 9}
    compressed = make({"algorithm": "n_m_sparsity", "params": params})
    reached = []
    for _ in range(5):
        compressed.epoch_step()
        reached.append(compressed.algorithms[0].sparsity())
    assert reached == pytest.approx([0, 0.125, 0.25, 0.375, 0.5], abs=2 / 944)


def test_layers_that_do_not_divide_stay_dense_and_are_named() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1))
    compressed = compress(net, {"compression": {"algorithm": "n_m_sparsity"}}, [torch.randn(1, 3, 8, 8)])
    algorithm = compressed.algorithms[0]
    assert [place.name for place in algorithm.places] == ["2.weight"]
    assert "0/conv2d:0, 1/conv2d:0" in algorithm.summary()[1]


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_are_grouped_along_their_first_axis(groups: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(8, 6, 3, groups=groups))
    compressed = compress(net, {"compression": {"algorithm": "n_m_sparsity"}}, [torch.randn(1, 8, 4, 4)])
    compressed.epoch_step()
    mask = compressed.algorithms[0].masks[0].kept()
    assert set(mask.movedim(0, -1).reshape(-1, 4).sum(-1).tolist()) == {2}


def test_one_of_eight() -> None:
    net = nn.Sequential(nn.Linear(16, 4))
    section = {"algorithm": "n_m_sparsity", "n": 1, "m": 8}
    compressed = compress(net, {"compression": section}, [torch.randn(2, 16)])
    compressed.epoch_step()
    assert compressed.algorithms[0].masks[0].kept().reshape(-1, 8).sum(-1).tolist() == [1] * 8
    assert compressed.algorithms[0].sparsity() == 7 / 8


def test_output_changes_by_the_mask_alone() -> None:
    net = network().eval()
    before = net(batch())
    compressed = make({"algorithm": "n_m_sparsity"}, net)
    torch.testing.assert_close(net(batch()), before)
    compressed.epoch_step()
    assert not torch.allclose(net(batch()), before)
