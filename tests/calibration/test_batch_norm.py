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
        if len(values) == 1:
            return values + 8
        other[-2:] = torch.tensor([1.0, 8.0])
        return values + other

    alone, shared = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    adapt_batch_norm(alone, data(alone, batches), 24)
    adapt_batch_norm(shared, data(shared, batches, reduce=reduce), 24)
    assert alone.running_mean is not None
    assert alone.running_var is not None
    torch.testing.assert_close(shared.running_mean, alone.running_mean * 0.75 + 1.25)
    torch.testing.assert_close(shared.running_var, alone.running_var * 0.75 + 1.25)


def test_a_process_that_could_measure_nothing_does_not_count() -> None:
    # the other process saw 8 samples and has a mean and a variance of 5, ours saw one sample
    def reduce(values: Tensor, operation: str) -> Tensor:
        return values + (torch.tensor([40.0] * 6 + [1.0, 8.0]) if len(values) > 1 else 8)

    norm = nn.BatchNorm1d(3)
    adapt_batch_norm(norm, data(norm, [torch.zeros(1, 3)], reduce=reduce), 1)
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [5.0] * 3


class Backbone(nn.Sequential):
    """Its first norm never trains, as the norms of many detectors."""

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        self[0].eval()
        return self


def test_a_norm_that_training_leaves_alone_is_left_alone(batches: list[Tensor]) -> None:
    network = Backbone(nn.BatchNorm1d(3), nn.BatchNorm1d(3)).eval()
    frozen = {name: value.clone() for name, value in network[0].state_dict().items()}
    adapt_batch_norm(network, data(network, batches), 32)
    assert all(torch.equal(value, frozen[name]) for name, value in network[0].state_dict().items())
    assert int(network[1].num_batches_tracked) == 4
    assert not any(module.training for module in network.modules())


def test_only_frozen_norms_need_no_data(batches: list[Tensor]) -> None:
    network = Backbone(nn.BatchNorm1d(3))
    assert adapt_batch_norm(network, data(network, []), 32) == 0


class Pooled(nn.Module):
    """A norm over maps and one behind global pooling, which has one value per channel and sample."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.pooled = nn.BatchNorm2d(3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(self.maps(x).mean((2, 3)))


def test_a_norm_skips_the_batches_that_give_it_one_value_per_channel() -> None:
    network = Pooled()
    adapt_batch_norm(network, data(network, [torch.randn(size, 3, 4, 4) for size in (1, 5, 1)]), 7)
    assert int(network.maps.num_batches_tracked) == 3  # type: ignore[arg-type]
    assert int(network.pooled.num_batches_tracked) == 1  # type: ignore[arg-type]


def test_a_norm_that_never_got_two_values_is_named() -> None:
    network = Pooled()
    with pytest.warns(UserWarning, match="1 of 2 batch norms, such as 'pooled', kept their statistics"):
        adapt_batch_norm(network, data(network, [torch.randn(1, 3, 4, 4)] * 2), 2)
    assert int(network.maps.num_batches_tracked) == 2  # type: ignore[arg-type]
    assert network.pooled.state_dict().keys() == nn.BatchNorm1d(3).state_dict().keys()
    for name, value in nn.BatchNorm1d(3).state_dict().items():
        assert torch.equal(network.pooled.state_dict()[name], value)


@pytest.mark.parametrize(
    ("norm", "odd"),
    [
        pytest.param(nn.BatchNorm2d(3), torch.randn(0, 3, 4, 4), id="no sample"),
        pytest.param(nn.InstanceNorm2d(3, track_running_stats=True), torch.randn(2, 3, 1, 1), id="one pixel"),
        pytest.param(nn.InstanceNorm1d(3, track_running_stats=True), torch.randn(3, 1), id="one value of one sample"),
    ],
)
def test_other_batches_without_a_variance_are_skipped_too(norm: nn.Module, odd: Tensor) -> None:
    shape = (2, *odd.shape[1:-2], 4, 4) if odd.ndim == 4 else (3, 4)
    adapt_batch_norm(norm, data(norm, [odd, torch.randn(shape) + 10]), 20)
    assert norm.running_mean.tolist() == pytest.approx([1.0] * 3, abs=0.2)  # type: ignore[union-attr]


def test_a_cumulative_average_over_long_training_becomes_that_of_the_data(batches: list[Tensor]) -> None:
    norm = nn.BatchNorm1d(3, momentum=None)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.fill_(10_000)
    adapt_batch_norm(norm, data(norm, batches), 32)
    torch.testing.assert_close(norm.running_mean, torch.stack([batch.mean(0) for batch in batches]).mean(0))
    assert int(norm.num_batches_tracked) == 10_004


def test_a_lazy_norm_that_nothing_reached_is_no_obstacle(batches: list[Tensor]) -> None:
    network = nn.Sequential(nn.BatchNorm1d(3))
    network.unused = nn.LazyBatchNorm1d()
    assert adapt_batch_norm(network, CalibrationData(batches=batches, forward=network[0], batch_size=len), 32) == 32
