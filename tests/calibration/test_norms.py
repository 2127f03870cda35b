from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_nncf.calibration.norms import frozen_norms, tracking_norms, values_per_channel


class Owner(nn.Module):
    def __init__(self, network: nn.Module, frozen: nn.Module) -> None:
        super().__init__()
        self.network, self.frozen = network, (frozen,)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


def pair() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.Linear(2, 2), nn.SyncBatchNorm(2)))


def test_a_norm_that_the_owner_keeps_in_evaluation_mode_is_frozen() -> None:
    network = pair().eval()
    assert frozen_norms(network, Owner(network, network[1])) == {network[1][1]}
    assert not any(module.training for module in network.modules())


def test_a_norm_in_evaluation_mode_in_a_training_network_is_frozen() -> None:
    network = pair().train()
    network[0].eval()
    assert frozen_norms(network) == {network[0]}
    assert [module.training for module in network.modules()] == [True, False, True, True, True]


def test_a_network_in_evaluation_mode_has_no_frozen_norms() -> None:
    network = pair().eval()
    assert frozen_norms(network, nn.Sequential(network)) == set()


def test_norms_without_statistics_of_their_own_are_none() -> None:
    network = nn.Sequential(
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.InstanceNorm2d(2),
        nn.LazyBatchNorm2d(),
        nn.InstanceNorm2d(2, track_running_stats=True),
        nn.BatchNorm3d(2, momentum=None),
    )
    assert list(tracking_norms(network)) == ["3", "4"]


@pytest.mark.parametrize(
    ("norm", "shape", "values"),
    [
        (nn.BatchNorm1d(3), (1, 3), 1),
        (nn.BatchNorm1d(3), (2, 3, 5), 10),
        (nn.BatchNorm2d(3), (0, 3, 4, 4), 0),
        (nn.InstanceNorm1d(3), (2, 3, 5), 5),
        (nn.InstanceNorm1d(3), (3, 5), 5),
        (nn.InstanceNorm2d(3), (4, 3, 1, 1), 1),
    ],
)
def test_values_per_channel(norm: Any, shape: tuple[int, ...], values: int) -> None:
    assert values_per_channel(norm, torch.zeros(shape)) == values
