from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_nncf.algorithms.quantization.initialization.histogram import (
    FloatHistogram,
    exact_median_and_deviation,
    reduce_histograms,
)

SHARES = (0.0, 0.001, 0.1, 0.5, 0.9, 0.999, 1.0)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


DATA: dict[str, Callable[[], Tensor]] = {
    "zero to 9999": lambda: torch.arange(10000.0).repeat(3),
    "normal": lambda: torch.randn(50000, generator=generator()),
    "after relu": lambda: torch.relu(torch.randn(50000, generator=generator())),
    "heavy tails": lambda: torch.tan((torch.rand(50000, generator=generator()) - 0.5) * 3.1415),
    "all equal": lambda: torch.full((5000,), -5.3),
    "tiny": lambda: torch.randn(50000, generator=generator()) * 1e-30,
    "huge": lambda: torch.randn(50000, generator=generator()) * 1e30,
    "two values": lambda: torch.tensor([1.0, 100.0]).repeat(2501)[:-1],
}


def counted(x: Tensor, parts: int = 3) -> FloatHistogram:
    """Return a histogram that keeps no value as it is."""
    histogram = FloatHistogram(len(x))
    histogram.count_kept()
    for part in x.chunk(parts, 1):
        histogram.update(part)
    return histogram


def state(histogram: FloatHistogram) -> tuple[int, Tensor, Tensor]:
    return histogram.top, histogram.counts, histogram.zeros


@pytest.mark.parametrize("name", DATA)
def test_quantiles_lie_within_a_bucket_of_numpy(name: str) -> None:
    x = DATA[name]()
    histogram = counted(x[None])
    exact = np.quantile(x.double().numpy(), SHARES)
    found = np.array([float(histogram.quantile(share)) for share in SHARES])
    assert (abs(found - exact) <= abs(exact) * 2.0**-7 + float(x.abs().max()) * 2.0**-31).all()


@pytest.mark.parametrize("name", DATA)
def test_median_and_deviation_lie_within_buckets_of_numpy(name: str) -> None:
    x = DATA[name]()
    present = x[x != 0].double().numpy()
    median = np.median(present)
    deviation = np.median(abs(present - median))
    found, spread = (float(part) for part in counted(x[None]).median_and_deviation())
    bucket = 2.0**-7 * abs(median)
    assert found == pytest.approx(median, abs=bucket)
    # the ends of the interval around the median lie in buckets too
    assert spread == pytest.approx(deviation, abs=2 * bucket + 2.0**-7 * deviation)


def test_few_values_are_exact_as_long_as_they_are_kept() -> None:
    x = torch.randn(2, 1001, generator=generator()) + torch.tensor([[0.0], [50.0]])
    x[0, ::7] = 0
    histogram = FloatHistogram(2)
    for part in x.chunk(4, 1):
        histogram.update(part)
    for share in SHARES:
        assert histogram.quantile(share).tolist() == np.quantile(x.double().numpy(), share, axis=1).tolist()
    present = x[0][x[0] != 0].double().numpy()
    median = np.median(present)
    center, deviation = histogram.median_and_deviation()
    assert [float(center[0]), float(deviation[0])] == [median, np.median(abs(present - median))]


def test_many_values_are_counted_in_memory_that_does_not_grow() -> None:
    histogram = FloatHistogram(1)
    sizes = []
    for _ in range(6):
        histogram.update(torch.randn(1, 100_000))
        kept = histogram._kept
        sizes.append((0 if kept is None else kept.numel(), histogram.counts.numel()))
    counters = 2 * 32 * 128
    assert sizes == [(100_000, counters), (200_000, counters), *[(0, counters)] * 4]
    assert int(histogram.counts.sum() + histogram.zeros.sum()) == 600_000


@pytest.mark.parametrize(("rows", "bits"), [(1, 7), (64, 7), (65, 6), (512, 4), (5000, 3)])
def test_many_rows_get_coarser_buckets(rows: int, bits: int) -> None:
    assert FloatHistogram(rows).mantissa_bits == bits


def test_rows_do_not_mix_and_keep_their_bound() -> None:
    x = torch.randn(200, 400, generator=generator()) * torch.logspace(-3, 3, 200)[:, None]
    histogram = counted(x)
    found, exact = histogram.quantile(0.95), torch.quantile(x.double(), 0.95, dim=1)
    assert histogram.mantissa_bits == 5
    assert bool(((found - exact).abs() <= exact.abs() * 2.0**-5).all())


def test_neither_order_nor_parts_matter() -> None:
    x = torch.cat([torch.randn(1, 3000) * 1e-6, torch.randn(1, 3000) * 1e9, torch.zeros(1, 5)], 1)
    first, second = counted(x, 1), counted(x.flip(1), 7)
    assert all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(state(first), state(second), strict=True)
    )


def test_values_far_below_the_largest_count_as_zero() -> None:
    histogram = counted(torch.tensor([[2.0**-40, -(2.0**-33), 2.0**-30, 1.0, 0.0]]), 5)
    assert int(histogram.zeros) == 3
    assert int(histogram.counts.sum()) == 2


def test_values_that_are_not_finite_are_not_counted() -> None:
    histogram = counted(torch.tensor([[1.0, float("nan"), float("inf"), -float("inf")]]))
    assert int(histogram.counts.sum() + histogram.zeros.sum()) == 1


def test_two_processes_hold_what_one_would() -> None:
    small, large = torch.randn(3, 500, generator=generator()), torch.randn(3, 700, generator=generator()) * 1000
    ours, theirs = FloatHistogram(3), FloatHistogram(3)
    ours.update(small)
    theirs.update(large)
    given: list[Tensor] = []

    def record(values: Tensor, operation: str) -> Tensor:
        given.append(values.clone())
        # the exponent of the other process arrives before the counts are taken
        return torch.maximum(values, torch.tensor([ours_top])) if operation == "max" else values

    def combine(values: Tensor, operation: str) -> Tensor:
        other = given.pop(0)
        return torch.maximum(values, other) if operation == "max" else values + other

    ours_top = counted(small).top
    reduce_histograms([theirs], record)
    reduce_histograms([ours], combine)
    whole = counted(torch.cat([small, large], 1))
    assert all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(state(ours), state(whole), strict=True)
    )


def test_rows_of_zeros_have_no_spread() -> None:
    x = torch.zeros(2, 4)
    assert [part.tolist() for part in exact_median_and_deviation(x)] == [[0.0, 0.0], [0.0, 0.0]]
    assert [part.tolist() for part in counted(x).median_and_deviation()] == [[0.0, 0.0], [0.0, 0.0]]
    assert counted(x).quantile(0.5).tolist() == [0.0, 0.0]
