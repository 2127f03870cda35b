from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_nncf.algorithms.quantization.initialization.quantile_statistics import (
    MeanPercentileStatistics,
    PercentileStatistics,
    ThreeSigmaStatistics,
    exact_quantiles,
    three_sigma,
)
from lightning_nncf.algorithms.quantization.initialization.range_statistics import RangeStatistics


def collected(statistics: RangeStatistics, *batches: Tensor) -> list[list[float]]:
    for batch in batches:
        statistics.update(batch)
    return [part.tolist() for part in statistics.result()]


def test_mean_percentile_averages_over_batches() -> None:
    # 10 and 90 % of 0..10 are 1 and 9; of 0, 10, .. 100 they are 10 and 90
    statistics = MeanPercentileStatistics(1, -1, symmetric=True, percentiles=(10, 90))
    assert collected(statistics, torch.arange(11.0), torch.arange(11.0) * 10) == [[5.5], [49.5]]


def test_percentiles_are_of_all_batches_together() -> None:
    statistics = PercentileStatistics(1, -1, symmetric=True, percentiles=(10, 90))
    batches = [torch.arange(11.0), torch.arange(11.0) * 10]
    exact = np.percentile(torch.cat(batches).numpy(), (10, 90))
    assert collected(statistics, *batches) == [[pytest.approx(exact[0])], [pytest.approx(exact[1])]]


@pytest.mark.parametrize(("lowest", "low"), [(None, -3.4478), (torch.tensor(0.0), 0.0), (torch.tensor(-0.1), -3.4478)])
def test_the_sign_of_a_symmetric_range_follows_from_the_data(lowest: Tensor | None, low: float) -> None:
    # 1 -+ 3 * 1.4826 * 1
    found = three_sigma(torch.tensor(1.0), torch.tensor(1.0), lowest)
    assert [float(part) for part in found] == pytest.approx([low, 5.4478])


def test_three_sigma_leaves_zeros_and_outliers_out() -> None:
    x = torch.tensor([0.0] * 50 + [1.0, 2.0, 3.0, 4.0, 1000.0])
    # median 3, distances 2 1 0 1 997: median 1
    width = 3 * 1.4826
    statistics = ThreeSigmaStatistics(1, -1, symmetric=False)
    assert collected(statistics, x) == [[pytest.approx(3 - width)], [pytest.approx(3 + width)]]


@pytest.mark.parametrize("make", [PercentileStatistics, ThreeSigmaStatistics, MeanPercentileStatistics])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("size", [8, 400_000])
def test_what_is_not_finite_shows_in_the_result(make: Any, bad: float, size: int) -> None:
    options = {} if make is ThreeSigmaStatistics else {"percentiles": (1.0, 99.0)}
    x = torch.ones(size)
    x[3] = bad
    low, high = collected(make(1, -1, symmetric=True, **options), torch.ones(4), x)
    assert not np.isfinite([*low, *high]).all()


@pytest.mark.parametrize("make", [PercentileStatistics, ThreeSigmaStatistics])
def test_many_equal_values_give_their_own_value(make: Any) -> None:
    options = {} if make is ThreeSigmaStatistics else {"percentiles": (1.0, 99.0)}
    assert collected(make(1, -1, symmetric=True, **options), torch.full((400_000,), 5.3)) == [
        [pytest.approx(5.3)],
        [pytest.approx(5.3)],
    ]


@pytest.mark.parametrize("make", [PercentileStatistics, ThreeSigmaStatistics, MeanPercentileStatistics])
def test_nothing_seen_is_infinite(make: Any) -> None:
    options = {} if make is ThreeSigmaStatistics else {"percentiles": (1.0, 99.0)}
    assert collected(make(1, -1, symmetric=True, **options), torch.zeros(0, 2)) == [[float("inf")], [-float("inf")]]


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_exact_percentiles_equal_those_of_numpy(axis: int) -> None:
    x = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(3))
    rows = x.reshape(1, -1) if axis < 0 else x.movedim(axis, 0).flatten(1)
    exact = np.percentile(rows.double().numpy(), (5, 95), axis=1).astype(np.float32)
    found = exact_quantiles(x, axis, "percentile", (5, 95), symmetric=True)
    assert [part.tolist() for part in found] == exact.tolist()
