from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf.calibration import CalibrationData, StatisticsWatch, ensure_statistics, run, tracking_norms
from lightning_nncf.calibration.stale import is_far


def watched(network: nn.Module, batches: list[Tensor], *, renew: bool = True, **options: Any) -> CalibrationData:
    watch = StatisticsWatch(tracking_norms(network), renew=renew, **options)
    return CalibrationData(batches=batches, forward=network.eval(), batch_size=len, watch=watch, **options)


def deep(layers: int = 12) -> nn.Sequential:
    """Every layer makes its input 30 times larger, which its norm takes back in training mode."""
    torch.manual_seed(0)
    network = nn.Sequential()
    for _ in range(layers):
        linear = nn.Linear(8, 8)
        nn.init.normal_(linear.weight, std=30 / 8**0.5)
        network.extend([linear, nn.BatchNorm1d(8)])
    return network


def images(count: int = 4, size: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 8, generator=generator) for _ in range(count)]


def test_norms_that_never_ran_get_statistics_in_the_pass_that_would_have_used_them() -> None:
    network, batches = deep(), images()
    seen: list[float] = []
    network.register_forward_hook(lambda *args: seen.append(float(args[2].std())))
    with pytest.warns(UserWarning, match=r"12 of 12 batch norms, such as '1', .*\(12 of them never ran"):
        run(watched(network, batches), 64, "test")
    assert len(seen) == 4
    assert all(0.7 < value < 1.4 for value in seen)
    # what training mode would give for all of the data
    expected = network[0](torch.cat(batches))
    torch.testing.assert_close(network[1].running_mean, expected.mean(0))
    torch.testing.assert_close(network[1].running_var, expected.var(0))
    assert int(network[1].num_batches_tracked) == 4


@pytest.mark.parametrize("size", [1, 2, 32])
def test_good_statistics_stay_to_the_bit_whatever_their_count_says(size: int) -> None:
    network = deep().train()
    for norm in tracking_norms(network).values():
        norm.momentum = None
    for batch in images(20, 64):
        network(batch)
    for norm in tracking_norms(network).values():
        norm.num_batches_tracked.zero_()  # type: ignore[union-attr]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(watched(network, images(8, size)), 8 * size, "test")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_statistics_that_trained_on_other_data_are_found(factor: float) -> None:
    norm = nn.BatchNorm1d(8)
    norm.train()
    for batch in images(50):
        norm(batch * factor)
    with pytest.warns(UserWarning, match=r"1 of 1 batch norms, .*\(0 of them never ran"):
        run(watched(norm, images()), 64, "test")
    torch.testing.assert_close(norm.running_var, torch.cat(images()).var(0))


def test_a_shift_is_found_too() -> None:
    norm = nn.BatchNorm1d(8)
    with pytest.warns(UserWarning, match="1 of 1 batch norms"):
        run(watched(norm, [batch + 30 for batch in images()]), 64, "test")
    assert float(norm.running_mean.mean()) == pytest.approx(30, abs=1)  # type: ignore[union-attr]


def test_without_permission_statistics_are_reported_and_kept() -> None:
    network = deep(3)
    with pytest.warns(UserWarning, match="3 of 3 .* stay as they are because `num_bn_adaptation_samples` is 0"):
        run(watched(network, images(), renew=False), 64, "test")
    assert network[1].running_var.tolist() == [1.0] * 8


def test_only_the_first_pass_is_watched_and_leaves_no_hook() -> None:
    network = deep(2)
    data = watched(network, images())
    with pytest.warns(UserWarning, match="batch norms"):
        ensure_statistics(data, 16)
    after = network[1].running_mean.clone()
    network[0].weight.data.mul_(1000)
    ensure_statistics(data)
    run(data, 64, "test")
    assert torch.equal(network[1].running_mean, after)
    assert not network[1]._forward_pre_hooks


def test_single_samples_behind_global_pooling_are_gathered() -> None:
    norm = nn.BatchNorm1d(8)
    samples = [batch * 100 for batch in images(32, 1)]
    with pytest.warns(UserWarning, match="1 of 1"):
        run(watched(norm, samples), 32, "test")
    torch.testing.assert_close(norm.running_var, torch.cat(samples).var(0))


def test_a_channel_that_did_not_vary_keeps_its_variance() -> None:
    norm = nn.BatchNorm1d(8)
    batches = [batch * 100 for batch in images()]
    for batch in batches:
        batch[:, 2] = 0
    with pytest.warns(UserWarning, match="1 of 1"):
        run(watched(norm, batches), 64, "test")
    assert float(norm.running_var[2]) == 1.0  # type: ignore[index]


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_data_that_say_nothing_change_nothing(value: float) -> None:
    norm = nn.BatchNorm1d(8)
    run(watched(norm, [torch.full((16, 8), value)]), 16, "test")
    assert norm.running_var is not None
    assert norm.running_var.tolist() == [1.0] * 8


def test_an_instance_norm_gets_the_mean_of_what_single_samples_have() -> None:
    norm = nn.InstanceNorm1d(8, track_running_stats=True)
    x = torch.randn(16, 8, 50, generator=torch.Generator().manual_seed(0)) * 20 + torch.arange(16.0)[:, None, None]
    with pytest.warns(UserWarning, match="1 of 1"):
        run(watched(norm, [x]), 16, "test")
    torch.testing.assert_close(norm.running_mean, x.mean(2).mean(0))
    torch.testing.assert_close(norm.running_var, x.var(2).mean(0))


def test_several_processes_end_with_the_statistics_of_all_data() -> None:
    ours, theirs = [batch * 100 for batch in images(2)], [batch * 100 + 5 for batch in images(2)]
    other: dict[str, Tensor] = {}

    def keep(values: Tensor, operation: str) -> Tensor:
        other[operation] = values.clone()
        return values

    # the other process, with what it gives to the reductions
    norm = nn.BatchNorm1d(8)
    with pytest.warns(UserWarning, match="batch norms"):
        run(watched(norm, theirs, reduce=keep), 32, "test")
    first = dict(other)
    norm = nn.BatchNorm1d(8)

    def reduce(values: Tensor, operation: str) -> Tensor:
        if len(values) == 1 and operation == "sum":
            return values + 32
        return values + first[operation] if operation == "sum" else torch.maximum(values, first[operation])

    first = {name: value for name, value in first.items() if name == "max"}
    first["sum"] = _sums(theirs)
    with pytest.warns(UserWarning, match="batch norms"):
        run(watched(norm, ours, reduce=reduce), 32, "test")
    everything = torch.cat([*ours, *theirs])
    torch.testing.assert_close(norm.running_mean, everything.mean(0))
    torch.testing.assert_close(norm.running_var, everything.var(0))


def _sums(batches: list[Tensor]) -> Tensor:
    """What a process with these data adds to the sums of a norm whose running mean is 0."""
    x = torch.cat(batches).double()
    within = sum(batch.double().var(0, correction=0) * len(batch) for batch in batches)
    assert isinstance(within, Tensor)
    return torch.cat([torch.tensor([float(len(x))], dtype=torch.float64), x.sum(0), x.square().sum(0), within])


def test_a_failing_batch_ends_the_watch_without_a_verdict() -> None:
    network = deep(2)
    data = watched(network, [*images(1), torch.zeros(4, 7)])
    with pytest.raises(RuntimeError):
        run(data, 64, "test")
    assert not network[1]._forward_pre_hooks


@pytest.mark.parametrize(
    ("shift", "spread", "limit", "few", "far"),
    [
        (0.0, 1.0, 4.0, False, False),
        (0.0, 5.0, 4.0, False, True),
        (0.0, 0.2, 4.0, False, True),
        (1.5, 1.0, 4.0, False, True),
        (1.5, 1.0, 4.0, True, False),
        (0.0, 0.1, 4.0, True, False),
        (20.0, 0.0, 4.0, True, True),
    ],
)
def test_the_distance_is_one_of_scales(shift: float, spread: float, limit: float, few: bool, far: bool) -> None:
    # one dead channel and one wild one decide nothing
    shifts, spreads = torch.tensor([shift, shift, shift, 0.0, 1e9]), torch.tensor([spread, spread, spread, 0.0, 1e9])
    assert is_far(shifts, spreads, limit, few=few) is far
