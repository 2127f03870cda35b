from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_nncf.algorithms.quantization.initialization.initializer_config import RangeType
from lightning_nncf.algorithms.quantization.initialization.range_init import RangeTask, initialize_ranges
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.quantizers import Quantizer, build_quantizer
from lightning_nncf.calibration import CalibrationData, process_group_reduce
from lightning_nncf.errors import InitializationError


def data(batches: list[Tensor], forward: Callable[[Tensor], object], **options: Any) -> CalibrationData:
    return CalibrationData(batches=batches, forward=forward, batch_size=len, **options)


def quantizer(mode: str = "symmetric", *, per_channel: bool = False, **options: Any) -> Quantizer:
    return build_quantizer(QuantizerConfig(mode=mode, per_channel=per_channel, **options), (1, 3, 2, 2), 1)  # type: ignore[arg-type]


def values(item: Quantizer) -> list[list[float]]:
    return [part.flatten().tolist() for part in item.parameters()]


@pytest.mark.parametrize("kind", ["min_max", "mean_min_max", "mixed_min_max"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("mode", "expected", "halved"),
    [("symmetric", [9999.0], [4999.5]), ("asymmetric", [0.0, 9999.0], [0.0, 4999.5])],
)
def test_the_published_ranges_of_zero_to_9999(
    kind: RangeType, per_channel: bool, mode: str, expected: list[float], halved: list[float]
) -> None:
    # NNCF's reference data: 0 .. 9999 in a picture, on three channels; here the last has half the values
    picture = torch.arange(10000.0).reshape(1, 1, 100, 100)
    x = torch.cat([picture, picture, picture / 2], 1)
    item = quantizer(mode, per_channel=per_channel)
    initialize_ranges([RangeTask(name="q", quantizer=item, type=kind)], data([x, x], item))
    channels = [[one, one, half] if per_channel else [one] for one, half in zip(expected, halved, strict=True)]
    assert values(item) == channels
    assert item.config.signed is (False if mode == "symmetric" else None)


@pytest.mark.parametrize("weight", [False, True], ids=["activation", "weight"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        ("threesigma", "symmetric", [16119.5]),
        ("threesigma", "asymmetric", [-6119.5, 22239.0]),
        ("percentile", "symmetric", [6789.0]),
        ("percentile", "asymmetric", [3210.0, 3578.0]),
        ("mean_percentile", "symmetric", [6789.0]),
        ("mean_percentile", "asymmetric", [3210.0, 3578.0]),
    ],
)
def test_the_published_ranges_that_leave_out_what_is_rare(
    kind: RangeType, mode: str, expected: list[float], per_channel: bool, weight: bool
) -> None:
    picture = torch.arange(10000.0).reshape(1, 1, 100, 100)
    # per tensor all channels are alike, per channel the last has half the values
    x = torch.cat([picture, picture, picture / 2 if per_channel else picture], 1)
    item = quantizer(mode, per_channel=per_channel)
    parameter = nn.Parameter(x) if weight else None
    task = RangeTask(name="q", quantizer=item, type=kind, percentiles=(32.10, 67.89), weight=parameter)
    initialize_ranges([task], data([x, x], item))
    for found, value in zip(values(item), expected, strict=True):
        channels = [value, value, value / 2] if per_channel else [value]
        assert found == [pytest.approx(channel, abs=1) for channel in channels]
    assert item.config.signed is (False if mode == "symmetric" else None)


class Network(nn.Module):
    """Two activations in a row, the second doubled; the first quantizer would change the second if it worked."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = quantizer(bits=2), quantizer(bits=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x) * 2)
        return y


def test_all_quantizers_are_bypassed_during_the_pass_and_enabled_after() -> None:
    network = Network()
    network.first.get_parameter("scale").data.fill_(0.01)
    tasks = [
        RangeTask(name=name, quantizer=item) for name, item in network.named_children() if isinstance(item, Quantizer)
    ]
    initialize_ranges(tasks, data([torch.full((2, 3), 1.5)], network))
    assert [values(task.quantizer) for task in tasks] == [[[1.5]], [[3.0]]]
    assert network.first.enabled
    assert network.second.enabled
    assert not network.first._forward_pre_hooks


def test_a_task_of_zero_samples_is_bypassed_and_keeps_its_range() -> None:
    network = Network()
    network.first.get_parameter("scale").data.fill_(0.01)
    weight = nn.Parameter(torch.full((2, 3), 7.0))
    kept = quantizer()
    initialize_ranges(
        [
            RangeTask(name="first", quantizer=network.first, num_samples=0),
            RangeTask(name="second", quantizer=network.second),
            RangeTask(name="weight", quantizer=kept, weight=weight, num_samples=0),
        ],
        data([torch.full((2, 3), 1.5)], network),
    )
    assert values(network.first) == [[pytest.approx(0.01)]]
    assert values(network.second) == [[3.0]]
    assert values(kept) == [[1.0]]


def test_weights_give_their_own_ranges_and_need_no_data() -> None:
    weight = nn.Parameter(torch.tensor([[-3.0, 1.0], [0.2, 0.5], [0.0, 0.01]]))
    item = build_quantizer(QuantizerConfig(signed=True, per_channel=True), weight.shape, 0)
    task = RangeTask(name="weight", quantizer=item, weight=weight, type="mean_min_max")
    initialize_ranges([task], data([], item))
    assert item.get_parameter("scale").flatten().tolist() == pytest.approx([3.0, 0.5, 0.01])
    assert weight.grad is None


def test_every_task_takes_its_own_number_of_samples_in_one_pass() -> None:
    few, many = quantizer(), quantizer()
    calls: list[int] = []

    def forward(batch: Tensor) -> None:
        calls.append(1)
        many(few(batch))

    batches = [torch.full((4, 2), float(value)) for value in (1, 2, 3, 4)]
    tasks = [
        RangeTask(name="few", quantizer=few, type="min_max", num_samples=5),
        RangeTask(name="many", quantizer=many, type="min_max", num_samples=12),
    ]
    initialize_ranges(tasks, data(batches, forward))
    assert (values(few), values(many)) == ([[2.0]], [[3.0]])
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("min_max", -6.0, 12.0), ("mean_min_max", -3.5, 7.0), ("mixed_min_max", -3.5, 7.0)]
)
def test_a_shared_quantizer_takes_the_widest_of_its_places(kind: RangeType, low: float, high: float) -> None:
    # first place: lows -1, -6 and highs 1, 2; second place: lows -2, -4 and highs 2, 12
    item = quantizer("asymmetric")

    def forward(batch: Tensor) -> None:
        item(batch)
        item(-2 * batch)

    batches = [torch.tensor([[-1.0, 1.0, 0.0]]), torch.tensor([[-6.0, 2.0, 0.0]])]
    initialize_ranges([RangeTask(name="shared", quantizer=item, type=kind)], data(batches, forward))
    assert values(item) == [[low], [high - low]]


def test_no_batch_is_an_error_and_leaves_the_quantizers_enabled() -> None:
    item = quantizer()
    with pytest.raises(InitializationError, match="Range initialization needs data"):
        initialize_ranges([RangeTask(name="q", quantizer=item)], data([], item))
    assert item.enabled


def test_a_quantizer_that_saw_nothing_is_named() -> None:
    with pytest.raises(InitializationError, match="quantizer 'branch/relu' saw no value"):
        initialize_ranges(
            [RangeTask(name="branch/relu", quantizer=quantizer())], data([torch.ones(2)], lambda batch: None)
        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", ["min_max", "mean_min_max", "mixed_min_max"])
def test_values_that_are_not_finite_are_an_error_naming_the_quantizer(kind: RangeType, bad: float) -> None:
    item = quantizer()
    batches = [torch.ones(2, 2), torch.tensor([[1.0, bad]]), torch.ones(2, 2)]
    with pytest.raises(InitializationError, match="quantizer 'conv/input': a range needs finite statistics"):
        initialize_ranges([RangeTask(name="conv/input", quantizer=item, type=kind)], data(batches, item))
    weight = nn.Parameter(torch.tensor([bad, 1.0]))
    with pytest.raises(InitializationError, match="quantizer 'conv/weight': a range needs finite statistics"):
        initialize_ranges([RangeTask(name="conv/weight", quantizer=item, type=kind, weight=weight)], data([], item))


def test_a_failing_batch_leaves_quantizers_enabled_and_without_hooks() -> None:
    item = quantizer()

    def forward(batch: Tensor) -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        initialize_ranges([RangeTask(name="q", quantizer=item)], data([torch.ones(2, 2)], forward))
    assert item.enabled
    assert not item._forward_pre_hooks


def test_negative_data_of_an_unsigned_quantizer_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    item = quantizer(signed=False)
    with caplog.at_level(logging.WARNING):
        initialize_ranges([RangeTask(name="relu", quantizer=item)], data([torch.tensor([[-2.0, 1.0]])], item))
    assert "quantizer 'relu' is configured as unsigned but its data reach down to -2" in caplog.text
    assert item.config.signed is False


def test_what_is_kept_does_not_grow_with_the_data() -> None:
    item = quantizer(per_channel=True)
    kept: list[int] = []

    def forward(batch: Tensor) -> None:
        item(batch)
        (hook,) = item._forward_pre_hooks.values()
        statistics = hook.__self__.calls  # type: ignore[attr-defined]
        kept.append(sum(part.numel() for one in statistics for part in (one.low, one.high, one.sums)))

    initialize_ranges([RangeTask(name="q", quantizer=item)], data([torch.randn(4, 3, 9, 9)] * 8, forward))
    assert kept == [12] * 8


def _distributed_worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.set_num_threads(1)
    batches = torch.load(f"{folder}/batches.pt")[rank::2]
    shared, mixed = quantizer("asymmetric", per_channel=True), quantizer()

    def forward(batch: Tensor) -> None:
        shared(mixed(batch))
        if batch.max() > 4:  # a second call that not every process makes
            shared(batch * 2)

    tasks = [RangeTask(name="shared", quantizer=shared, type="mean_min_max"), RangeTask(name="mixed", quantizer=mixed)]
    initialize_ranges(tasks, data(batches, forward, reduce=process_group_reduce))
    rare = []
    for kind in ("percentile", "mean_percentile", "threesigma"):
        item = quantizer("asymmetric", per_channel=True)
        task = RangeTask(name=kind, quantizer=item, type=kind, percentiles=(5, 95))
        initialize_ranges([task], data(batches, item, reduce=process_group_reduce))
        rare.append(values(item))
    torch.save([values(shared), values(mixed), mixed.config.signed, rare], f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_get_the_ranges_of_one(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    batches = [torch.rand(4, 3, 2, 2, generator=generator) + index for index in range(4)]
    batches[3] += 1.5
    torch.save(batches, tmp_path / "batches.pt")
    torch.multiprocessing.spawn(_distributed_worker, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert first == second
    lows, highs = (
        torch.stack([batch.amin((0, 2, 3)) for batch in batches]),
        torch.stack([batch.amax((0, 2, 3)) for batch in batches]),
    )
    top = torch.maximum(highs.mean(0), highs[3] * 2)
    torch.testing.assert_close(torch.tensor(first[0][0]), lows.mean(0))
    torch.testing.assert_close(torch.tensor(first[0][0]) + torch.tensor(first[0][1]), top)
    torch.testing.assert_close(torch.tensor(first[1][0]), torch.cat(batches).amax((1, 2, 3)).mean().reshape(1))
    assert first[2] is False
    # all values together, but for the width of a bucket
    whole = torch.cat(batches).movedim(1, 0).flatten(1).double()
    low, high = torch.quantile(whole, torch.tensor([0.05, 0.95], dtype=torch.float64), dim=1)
    torch.testing.assert_close(torch.tensor(first[3][0][0]), low.float(), rtol=2**-7, atol=0)
    torch.testing.assert_close(torch.tensor(first[3][0]).sum(0), high.float(), rtol=2**-7, atol=0)


def test_two_bits_up_to_the_largest_value_are_warned_of() -> None:
    weight = nn.Parameter(torch.randn(1, 3, 2, 2))
    two, eight = quantizer(bits=2), quantizer(signed=True)
    tasks = [
        RangeTask(name="w", quantizer=quantizer(bits=2, signed=True), weight=weight),
        RangeTask(name="fits", quantizer=quantizer(bits=2, signed=True), weight=weight, type="least_squares"),
        RangeTask(name="a", quantizer=two),
        RangeTask(name="wide", quantizer=eight),
    ]
    with pytest.warns(UserWarning) as caught:  # noqa: PT030
        initialize_ranges(tasks, data([torch.randn(2, 3, 4, 4)], lambda x: eight(two(x))))
    told = [str(each.message) for each in caught if "2 bits" in str(each.message)]
    assert len(told) == 2
    assert "1 quantizers of weights have 2 bits" in told[0]
    assert "'w'" in told[0]
    assert "`least_squares`" in told[0]
    assert "1 quantizers of activations" in told[1]
    assert "'a'" in told[1]
