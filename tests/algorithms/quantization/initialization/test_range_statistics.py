from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_nncf.algorithms.quantization.initialization.range_statistics import (
    MinMaxType,
    RangeStatistics,
    extremes,
    reduce_statistics,
)

LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3),
    "strided": lambda x: x[:, :, ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_extremes_do_not_depend_on_the_layout(layout: str) -> None:
    x = LAYOUTS[layout](torch.randn(3, 4, 6, 5, generator=torch.Generator().manual_seed(1)))
    values = x.contiguous()
    assert [part.tolist() for part in extremes(x, -1)] == [[values.min()], [values.max()]]
    for axis in range(4):
        channels = [values.select(axis, index) for index in range(x.shape[axis])]
        assert [part.tolist() for part in extremes(x, axis)] == [
            [channel.min() for channel in channels],
            [channel.max() for channel in channels],
        ]
    assert [part.tolist() for part in extremes(x, -1, per_sample=True)] == [
        [sample.min() for sample in values],
        [sample.max() for sample in values],
    ]


@pytest.mark.parametrize("shape", [(), (3,)])
def test_extremes_of_tensors_without_samples(shape: tuple[int, ...]) -> None:
    low, high = extremes(torch.full(shape, 2.0), -1, per_sample=True)
    assert low.tolist() == high.tolist() == [2.0]


def collected(
    kind: MinMaxType, batches: list[Tensor], *, symmetric: bool, axis: int = -1, size: int = 1
) -> list[list[float]]:
    statistics = RangeStatistics(kind, size, axis, symmetric=symmetric)
    for batch in batches:
        statistics.update(batch)
    return [part.tolist() for part in statistics.result()]


# samples [-1, 2], [-5, 1] | [0, 8], [-2, 4]
BATCHES = [torch.tensor([[-1.0, 2.0], [-5.0, 1.0]]), torch.tensor([[0.0, 8.0], [-2.0, 4.0]])]


@pytest.mark.parametrize(
    ("kind", "symmetric", "low", "high"),
    [
        ("min_max", False, -5.0, 8.0),
        ("min_max", True, -5.0, 8.0),
        ("mean_min_max", False, (-5 - 2) / 2, (2 + 8) / 2),
        ("mean_min_max", True, (-5 - 2) / 2, (5 + 8) / 2),
        ("mixed_min_max", False, (-1 - 5 + 0 - 2) / 4, (2 + 1 + 8 + 4) / 4),
        ("mixed_min_max", True, -5.0, (2 + 5 + 8 + 4) / 4),
    ],
)
def test_statistics_per_tensor_worked_by_hand(kind: MinMaxType, symmetric: bool, low: float, high: float) -> None:
    assert collected(kind, BATCHES, symmetric=symmetric) == [[low], [high]]


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("min_max", [-5.0, 1.0], [0.0, 8.0]),
        ("mean_min_max", [(-5 - 2) / 2, (1 + 4) / 2], [(-1 + 0) / 2, (2 + 8) / 2]),
        ("mixed_min_max", [-5.0, 1.0], [0.0, 8.0]),
    ],
)
def test_statistics_per_channel_worked_by_hand(kind: MinMaxType, low: list[float], high: list[float]) -> None:
    assert collected(kind, BATCHES, symmetric=False, axis=1, size=2) == [low, high]


@pytest.mark.parametrize("kind", ["min_max", "mean_min_max", "mixed_min_max"])
def test_empty_batches_count_for_nothing(kind: MinMaxType) -> None:
    with_empty = [BATCHES[0], torch.zeros(0, 2), BATCHES[1]]
    assert collected(kind, with_empty, symmetric=False) == collected(kind, BATCHES, symmetric=False)
    assert collected(kind, [torch.zeros(0, 2)], symmetric=False) == [[float("inf")], [-float("inf")]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_summed_in_double(dtype: torch.dtype) -> None:
    batches = [torch.full((64, 4), 3.0).to(dtype) for _ in range(64)]
    assert collected("mixed_min_max", batches, symmetric=True) == [[3.0], [3.0]]


def two_processes(ours: list[RangeStatistics], theirs: list[RangeStatistics]) -> None:
    """Reduce two lists as two processes would, first recording what the other one gives."""
    given: list[Tensor] = []

    def record(values: Tensor, operation: str) -> Tensor:
        given.append(values.clone())
        return values

    def combine(values: Tensor, operation: str) -> Tensor:
        other = given.pop(0)
        return {"sum": torch.add, "min": torch.fmin, "max": torch.fmax}[operation](values, other)

    reduce_statistics(theirs, record)
    reduce_statistics(ours, combine)


@pytest.mark.parametrize("kind", ["min_max", "mean_min_max", "mixed_min_max"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_two_processes_get_what_one_would(kind: MinMaxType, axis: int) -> None:
    size = 2 if axis == 1 else 1
    ours, theirs = ([RangeStatistics(kind, size, axis, symmetric=False) for _ in range(2)] for _ in range(2))
    for mine, other in zip(ours, theirs, strict=True):
        mine.update(BATCHES[0])
        other.update(BATCHES[1])
    ours.append(RangeStatistics(kind, size, axis, symmetric=False))
    theirs.append(RangeStatistics(kind, size, axis, symmetric=False))
    ours[2].update(BATCHES[0])  # the other process never came here
    two_processes(ours, theirs)
    both = collected(kind, BATCHES, symmetric=False, axis=axis, size=size)
    one = collected(kind, BATCHES[:1], symmetric=False, axis=axis, size=size)
    assert [[part.tolist() for part in item.result()] for item in ours] == [both, both, one]


def test_not_a_number_in_one_process_is_not_lost() -> None:
    ours, theirs = ([RangeStatistics("min_max", 2, 1, symmetric=False)] for _ in range(2))
    ours[0].update(BATCHES[0])
    theirs[0].update(torch.tensor([[1.0, float("nan")]]))
    two_processes(ours, theirs)
    assert [part.isnan().tolist() for part in ours[0].result()] == [[False, True], [False, True]]
