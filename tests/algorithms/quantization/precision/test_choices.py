from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightning_nncf.algorithms.quantization.initialization.initializer_config import PrecisionConfig
from lightning_nncf.algorithms.quantization.precision.choices import Choices, evaluate_choices, pick
from lightning_nncf.algorithms.quantization.precision.space import SearchSpace
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.errors import ConfigError


def _space(options: list[tuple[int, ...]], **changes: Any) -> SearchSpace:
    """Two layers, each an activation (0, 2) and a weight (1, 3) that act on one op, of 72 and 108 operations."""
    values: dict[str, Any] = {
        "kinds": ("activation", "weight", "activation", "weight"),
        "options": tuple(tuple(QuantizerConfig(bits=bits) for bits in each) for each in options),
        "flops": (0, 72, 0, 108),
        "feeding": ((), (0,), (), (2,)),
        "adjacent": ((0, 1), (2, 3)),
    }
    return SearchSpace(**{**values, **changes})


BOTH = [(4, 8)] * 4
EVEN = {1: {4: 10.0, 8: 1.0}, 3: {4: 10.0, 8: 1.0}}
SIZES = {1: 100, 3: 300}


def _rows(space: SearchSpace, traces: dict[int, float], **config: Any) -> dict[tuple[int, ...], tuple[float, float]]:
    found = evaluate_choices(space, traces, EVEN, SIZES, PrecisionConfig(type="hawq", **config))
    return {
        tuple(bits): (ratio, metric)
        for bits, ratio, metric in zip(found.bits.tolist(), found.ratios.tolist(), found.metrics.tolist(), strict=True)
    }


def test_all_assignments_with_their_ratio_and_metric() -> None:
    # Layer 3 is less sensitive than layer 1, so it never has more bits.
    assert _rows(_space(BOTH), {1: 2.0, 3: 0.5}) == {
        (4, 4, 4, 4): (2.0, 2.0 * 10 + 0.5 * 10),
        (8, 8, 4, 4): (1440 / (72 * 8 + 108 * 4), 2.0 * 1 + 0.5 * 10),
        (8, 8, 8, 8): (1.0, 2.0 * 1 + 0.5 * 1),
    }


def test_the_larger_of_weight_and_activation_counts() -> None:
    rows = _rows(_space([(8,), (4, 8), (8,), (4, 8)]), {1: 2.0, 3: 0.5})
    assert {ratio for ratio, _ in rows.values()} == {1.0}


def test_a_ratio_of_sizes_counts_weights_alone() -> None:
    rows = _rows(_space([(8,), (4, 8), (8,), (4, 8)]), {1: 2.0, 3: 0.5}, compression_ratio_of="size")
    assert rows[8, 8, 8, 4][0] == pytest.approx(8 * 400 / (100 * 8 + 300 * 4))


def test_a_layer_without_a_bit_width_takes_the_nearest_it_has() -> None:
    # 2 bits are not for layer 1, which takes 4 instead; 8 are not for layer 3.
    space = _space([(8,), (4, 8), (8,), (2, 4)])
    changes = {1: {4: 10.0, 8: 1.0}, 3: {2: 10.0, 4: 1.0}}
    found = evaluate_choices(space, {1: 2.0, 3: 0.5}, changes, SIZES, PrecisionConfig(type="hawq"))
    assert {tuple(row) for row in found.bits[:, [1, 3]].tolist()} == {(4, 2), (8, 2), (4, 4), (8, 4)}


def test_negative_traces_gain_nothing_from_larger_changes() -> None:
    rows = _rows(_space(BOTH), {1: 2.0, 3: -0.5})
    assert rows[4, 4, 4, 4][1] == 20.0


@pytest.mark.parametrize(
    ("activation", "weights", "expected"),
    [
        ((8,), (4, 8), {(8, 4), (8, 8)}),
        ((4, 8), (4, 8), {(4, 4), (8, 8)}),
        ((2, 8), (4, 8), {(2, 4), (8, 8)}),
    ],
    ids=["only option", "shared option", "fewest where none is shared"],
)
def test_liberal_activations_follow_their_weights(
    activation: tuple[int, ...], weights: tuple[int, ...], expected: set[tuple[int, ...]]
) -> None:
    rows = _rows(_space([activation, weights, activation, weights]), {1: 1.0, 3: 1.0})
    assert {row[:2] for row in rows} == expected


def test_strict_keeps_only_assignments_in_which_neighbours_are_equal() -> None:
    space = _space(BOTH, adjacent=((0, 1, 2, 3),))
    rows = _rows(space, {1: 2.0, 3: 0.5}, bitwidth_assignment_mode="strict")
    assert set(rows) == {(4, 4, 4, 4), (8, 8, 8, 8)}


def test_strict_without_a_common_bit_width_is_an_error() -> None:
    with pytest.raises(ConfigError, match="`liberal`"):
        _rows(_space([(2,), (4, 8), (2,), (4, 8)]), {1: 2.0, 3: 0.5}, bitwidth_assignment_mode="strict")


def test_too_many_assignments_are_an_error() -> None:
    count = 60
    space = SearchSpace(
        kinds=("weight",) * count,
        options=(tuple(QuantizerConfig(bits=bits) for bits in range(2, 9)),) * count,
        flops=(1,) * count,
        feeding=((),) * count,
        adjacent=(),
    )
    with pytest.raises(ConfigError, match="give fewer bit widths"):
        evaluate_choices(space, dict.fromkeys(range(count), 1.0), {}, {}, PrecisionConfig(type="hawq"))


@pytest.mark.parametrize(("target", "position"), [(1, 1), (2, 1), (3, 4), (4, 4), (5, 5), (6, 5), (6 + 1e-12, 5)])
def test_pick_takes_the_published_choices(target: float, position: int) -> None:
    choices = Choices(np.zeros((6, 1), dtype=np.int64), np.array([1.0, 2, 2, 3, 4, 6]), np.array([5.0, 1, 6, 3, 2, 4]))
    assert pick(choices, target) == position


@pytest.mark.parametrize("target", [0.9, 6.1])
def test_a_ratio_outside_of_what_is_possible_is_an_error_that_names_the_bounds(target: float) -> None:
    choices = Choices(np.zeros((2, 1), dtype=np.int64), np.array([1.0, 6.0]), np.zeros(2))
    with pytest.raises(ConfigError, match=r"must be from 1 to 6 .* got"):
        pick(choices, target)
