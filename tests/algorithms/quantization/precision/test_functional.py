from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from lightning_nncf.algorithms.quantization.precision.functional import (
    choose,
    compression_ratio,
    count_sequences,
    rademacher,
    sequences,
)


@pytest.mark.parametrize("bits", [(2,), (4, 8), (2, 4, 8), (2, 3, 4, 8)])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_sequences_are_all_that_never_fall(bits: tuple[int, ...], length: int) -> None:
    expected = {each for each in product(bits, repeat=length) if list(each) == sorted(each)}
    found = list(sequences(bits, length))
    assert len(found) == len(set(found)) == count_sequences(len(bits), length)
    assert set(found) == expected


# The values that NNCF publishes for this choice.
@pytest.mark.parametrize(("target", "position"), [(1, 1), (2, 1), (3, 4), (4, 4), (5, 5), (6, 5)])
def test_choice_is_the_least_metric_that_reaches_the_ratio(target: float, position: int) -> None:
    assert choose([1, 2, 2, 3, 4, 6], [5, 1, 6, 3, 2, 4], target) == position


def test_no_choice_reaches_an_impossible_ratio() -> None:
    assert choose([1, 2], [1, 1], 3) is None


# Two layers of 72 and 108 operations; by hand 8 * 180 = 1440 over the operations weighted by bits.
@pytest.mark.parametrize(
    ("bits", "expected"),
    [([4, 4], 2.0), ([4, 8], 1440 / (72 * 4 + 108 * 8)), ([8, 4], 1440 / (72 * 8 + 108 * 4)), ([8, 8], 1.0)],
)
def test_compression_ratio(bits: list[int], expected: float) -> None:
    assert compression_ratio([72, 108], bits) == pytest.approx(expected)
    assert np.array_equal(compression_ratio([72, 108], [bits, bits]), [expected, expected])


def test_rademacher_numbers_are_fair_and_repeatable() -> None:
    drawn = [rademacher(torch.zeros(100, 100), torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(drawn[0], drawn[1])
    assert drawn[0].unique().tolist() == [-1, 1]
    assert abs(float(drawn[0].mean())) < 0.05
