from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_nncf.algorithms.pruning.selection import (
    bisect_rate,
    global_masks,
    greedy_masks,
    group_mask,
    pruned_count,
)


@pytest.mark.parametrize(
    ("total", "rate", "multiple", "expected"),
    [(20, 0.2, 1, 4), (20, 0.2, 8, 4), (20, 0.1, 2, 2), (20, 0.1, 5, 0), (20, 0.5, 8, 4), (40, 0.4, 8, 16)],
)
def test_rounding_has_the_published_values(total: int, rate: float, multiple: int, expected: int) -> None:
    assert pruned_count(total, rate, multiple) == expected


@given(st.integers(1, 300), st.floats(0, 0.999), st.sampled_from([1, 2, 8]))
def test_what_is_left_is_a_multiple_or_everything_and_never_nothing(total: int, rate: float, multiple: int) -> None:
    mask = group_mask(torch.rand(total), rate, multiple)
    left = int(mask.sum())
    assert left >= 1
    assert left == total or left % multiple == 0
    assert left >= total * (1 - rate) - 1e-6


def test_least_important_units_go_first_and_equal_ones_by_order() -> None:
    assert group_mask(torch.tensor([2.0, 1.0, 1.0, 3.0]), 0.25, 1).tolist() == [True, False, True, True]
    assert int(group_mask(torch.ones(64), 0.4).sum()) == 40


def test_one_ranking_for_all_groups_takes_the_exact_share() -> None:
    masks = global_masks([torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 9.0])], 0.4)
    assert [mask.tolist() for mask in masks] == [[False, True, True], [False, True]]


def test_greedy_removal_stops_at_the_target_and_spares_a_tenth_of_each_group() -> None:
    scores = [torch.arange(10.0), torch.arange(10.0) + 100]
    masks = greedy_masks(scores, lambda masks: sum(int(mask.sum()) for mask in masks) <= 10)
    assert masks is not None
    assert [int(mask.sum()) for mask in masks] == [1, 9]
    assert greedy_masks(scores, lambda masks: not masks[0].any()) is None


def test_bisection_finds_the_smallest_rate_or_nothing() -> None:
    rate = bisect_rate(lambda rate: rate >= 0.37, 0.99)
    assert rate is not None
    assert 0.37 <= rate <= 0.38
    assert bisect_rate(lambda rate: False) is None
    assert bisect_rate(lambda rate: True) == 0.0
