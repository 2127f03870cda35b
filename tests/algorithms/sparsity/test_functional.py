"""Masks against hand-worked values, a full sort, and invariants."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_nncf.algorithms.sparsity import functional
from lightning_nncf.algorithms.sparsity.functional import (
    importance,
    magnitude_masks,
    magnitude_threshold,
    n_m_mask,
    n_m_masks,
)
from lightning_nncf.algorithms.sparsity.selection import kth_smallest


def toy() -> list[Tensor]:
    """Kernels of 9 and of -10 with an identity added, NNCF's published example."""
    first = torch.full((2, 1, 2, 2), 9.0) + torch.eye(2)
    second = torch.full((1, 2, 3, 3), -10.0) + torch.eye(3)
    return [first, second]


@pytest.mark.parametrize(
    ("level", "published", "exact"),
    [(0.1, 0.219, 9 / 1686**0.5), (0.5, 0.243, 10 / 1686**0.5), (0.9, 0.371, 10 / 724**0.5)],
)
def test_thresholds_are_the_published_ones(level: float, published: float, exact: float) -> None:
    # Squared norms: 4 * 81 + 4 * 100 = 724 and 6 * 81 + 12 * 100 = 1686; the published values are cut off.
    threshold = magnitude_threshold([importance(w) for w in toy()], level)
    assert threshold == pytest.approx(exact)
    assert int(threshold * 1000) / 1000 == published


def test_absolute_importance_compares_layers_as_they_are() -> None:
    masks = magnitude_masks([importance(w, "abs") for w in toy()], 0.32)
    # 26 weights, ten of them with absolute value 9: int(25 * 0.32) + 1 = 9 of those are dropped.
    assert sum(int((~mask).sum()) for mask in masks) == 9
    assert masks[0].flatten().tolist() == [True, False, False, True] * 2


def test_level_zero_keeps_everything() -> None:
    assert all(bool(mask.all()) for mask in magnitude_masks([torch.tensor([0.0, 1.0])], 0.0))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    level=st.floats(0, 0.999),
    values=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_level_is_met_within_one_weight_whatever_is_equal(
    sizes: list[int], level: float, values: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    importances = [torch.randint(0, values, (size,), generator=generator).float() for size in sizes]
    masks = magnitude_masks(importances, level)
    dropped = sum(int((~mask).sum()) for mask in masks)
    assert abs(dropped - level * sum(sizes)) <= 1
    kept = torch.cat([tensor[mask] for tensor, mask in zip(importances, masks, strict=True)])
    lost = torch.cat([tensor[~mask] for tensor, mask in zip(importances, masks, strict=True)])
    assert len(kept) == 0 or len(lost) == 0 or lost.max() <= kept.min()


@pytest.mark.parametrize("share", [0.0, 0.003, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("shape", ["normal", "constant", "two values"])
def test_selection_equals_a_full_sort(share: float, shape: str) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(400_000, generator=generator).abs()
    if shape == "constant":
        values = torch.ones_like(values)
    elif shape == "two values":
        values = (values > 0.7).float()
    k = int(share * (len(values) - 1))
    assert kth_smallest(values.split([100_000, 1, 299_999]), k) == values.sort().values[k]


def test_selection_survives_a_sample_that_misleads() -> None:
    values = torch.zeros(1 << 18)
    values[1::2] = 1.0  # every sampled position is even
    assert kth_smallest([values], 3 << 16) == 1.0


def test_selection_refuses_a_position_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        kth_smallest([torch.zeros(2)], 2)


def test_two_of_four_keeps_the_larger_half() -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0, 0.0, 0.0, 0.0, 0.0]])
    expected = [[False, False, True, True, True, True, False, False]]
    assert n_m_mask(weight.abs(), 2, 4, axis=1).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(2, 8),
    data=st.data(),
    groups=st.integers(1, 3),
    rank=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_exactly_n_of_every_m_are_kept(m: int, data: st.DataObject, groups: int, rank: int, seed: int) -> None:
    n, axis = data.draw(st.integers(1, m - 1)), data.draw(st.integers(0, rank - 1))
    shape = [2] * rank
    shape[axis] = groups * m
    values = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed)).float()
    mask = n_m_mask(values, n, m, axis)
    counts = mask.movedim(axis, -1).reshape(-1, m).sum(-1)
    assert mask.shape == values.shape
    assert counts.tolist() == [n] * len(counts)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_share_of_groups_is_made_sparse(share: float) -> None:
    values = [torch.rand(8, 16, generator=torch.Generator().manual_seed(1)), torch.rand(4, 8) + 5]
    masks = n_m_masks(values, 2, 4, [1, 1], share)
    groups = torch.cat([mask.reshape(-1, 4).sum(-1) for mask in masks])
    assert set(groups.tolist()) <= {2, 4}
    assert abs(int((groups == 2).sum()) - share * len(groups)) <= 1
    if share <= 0.5:
        assert bool(masks[1].all()), "the groups of the second layer would lose most"


def test_an_axis_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be divided into groups of 4"):
        n_m_mask(torch.zeros(2, 6), 2, 4, axis=1)


def test_half_types_keep_their_order() -> None:
    weight = torch.tensor([0.1, 0.2, 0.3], dtype=torch.bfloat16)
    assert functional.importance(weight).dtype == torch.float32
