"""Importance against NNCF's published values."""

from __future__ import annotations

import pytest
import torch

from lightning_nncf.algorithms.pruning.functional import IMPORTANCE, group_importance


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("L1", (2, 3, 4, 5), [1770, 5370]),
        ("L2", (2, 3, 4, 5), [264.9717, 706.1232]),
        ("geometric_median", (3, 2, 4, 5), [758.9466, 505.9644, 758.9466]),
    ],
)
def test_importance_has_the_published_values(kind: str, shape: tuple[int, ...], expected: list[float]) -> None:
    count = torch.Size(shape).numel()
    filters = torch.arange(count, dtype=torch.float32).reshape(shape).flatten(1)
    assert IMPORTANCE[kind](filters).tolist() == pytest.approx(expected, abs=1e-3)


def test_importance_of_a_unit_is_the_sum_over_its_filters() -> None:
    scores = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0])]
    units = [torch.tensor([0, 0, 1]), torch.tensor([1, 0])]
    assert group_importance(scores, units, 2).tolist() == [23.0, 13.0]
