from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf.calibration import CalibrationData, adapt_batch_norm
from lightning_nncf.errors import InitializationError


def data(network: nn.Module, batches: list[Tensor], **options: Any) -> CalibrationData:
    return CalibrationData(batches=batches, forward=network, batch_size=len, **options)


@pytest.fixture
def batches() -> list[Tensor]:
    torch.manual_seed(5)
    return [torch.randn(8, 3) * 2 + 1 for _ in range(4)]


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_running_statistics_move_by_the_momentum_from_where_they_are(batches: list[Tensor], momentum: float) -> None:
    norm = nn.BatchNorm1d(3, momentum=momentum)
    norm.running_mean = torch.tensor([3.0, 0.0, -3.0])
    mean, var = norm.running_mean.clone(), torch.ones(3)
    for batch in batches[:2]:
        mean = (1 - momentum) * mean + momentum * batch.mean(0)
        var = (1 - momentum) * var + momentum * batch.var(0)
    assert adapt_batch_norm(nn.Sequential(norm), data(norm, batches), 16) == 16
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)


def test_a_cumulative_average_is_the_mean_over_the_batches(batches: list[Tensor]) -> None:
    norm = nn.BatchNorm1d(3, momentum=None)
    adapt_batch_norm(norm, data(norm, batches), 32)
    torch.testing.assert_close(norm.running_mean, torch.stack([batch.mean(0) for batch in batches]).mean(0))


def test_only_batch_norms_train_meanwhile_and_all_flags_come_back(batches: list[Tensor]) -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))
    network.train()
    network[2].eval()
    flags = [module.training for module in network.modules()]
    seen: list[list[bool]] = []
    network[1].register_forward_hook(lambda *_: seen.append([module.training for module in network.modules()]))
    adapt_batch_norm(network, data(network, batches), 8)
    assert seen == [[False, True, False, False]]
    assert [module.training for module in network.modules()] == flags == [True, True, True, False]


def test_flags_come_back_when_a_batch_fails() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3)).eval()
    with pytest.raises(RuntimeError):
        adapt_batch_norm(network, data(network, [torch.zeros(4, 7)]), 4)
    assert not network[0].training


def test_parameters_and_gradients_are_untouched(batches: list[Tensor]) -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = [part.detach().clone() for part in network.parameters()]
    adapt_batch_norm(network, data(network, batches), 32)
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    assert all(part.grad is None for part in network.parameters())


@pytest.mark.parametrize("network", [nn.Linear(3, 2), nn.BatchNorm1d(3, track_running_stats=False)])
def test_without_running_statistics_no_data_is_needed(network: nn.Module) -> None:
    assert adapt_batch_norm(network, data(network, []), 100) == 0


def test_zero_samples_do_nothing(batches: list[Tensor]) -> None:
    norm = nn.BatchNorm1d(3)
    assert adapt_batch_norm(norm, data(norm, batches), 0) == 0
    assert norm.num_batches_tracked is not None
    assert norm.num_batches_tracked.item() == 0


def test_no_batch_is_an_error() -> None:
    norm = nn.BatchNorm1d(3)
    with pytest.raises(InitializationError, match="Batch-norm adaptation needs data"):
        adapt_batch_norm(norm, data(norm, []), 8)


def test_several_processes_average_by_their_samples(batches: list[Tensor]) -> None:
    # a second process whose statistics are all 5, from 8 samples, beside our 24
    def reduce(values: Tensor, operation: str) -> Tensor:
        assert operation == "sum"
        other = torch.full_like(values, 5.0 * 8)
        other[-1] = 8
        return values + (other if len(values) > 1 else 8)

    alone, shared = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    adapt_batch_norm(alone, data(alone, batches), 24)
    adapt_batch_norm(shared, data(shared, batches, reduce=reduce), 24)
    assert alone.running_mean is not None
    assert alone.running_var is not None
    torch.testing.assert_close(shared.running_mean, alone.running_mean * 0.75 + 1.25)
    torch.testing.assert_close(shared.running_var, alone.running_var * 0.75 + 1.25)
