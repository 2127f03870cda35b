from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lightning_nncf.algorithms.quantization.precision.environment import (
    Decision,
    PrecisionGame,
    bits_of_action,
    reward_scale,
)


def _game(**changes: Any) -> PrecisionGame:
    """An activation and two weights of 100 and 300 values, beside a weight of 100 values that stays in 8 bits."""
    decisions = [
        Decision(bits=(2, 4, 8), features=(0.0, 5.0)),
        Decision(bits=(2, 4, 8), features=(1.0, 5.0), size=100),
        Decision(bits=(4, 8), features=(1.0, 7.0), size=300),
    ]
    values: dict[str, Any] = {"fixed_bits": 800, "total": 500, "target": 1.0, "score": sum}
    return PrecisionGame(decisions, (2, 4, 8), **{**values, **changes})


def _play(game: PrecisionGame, actions: Sequence[float]) -> tuple[float, list[float]]:
    game.reset()
    for action in actions:
        game.act(action)
    assert game.is_over
    return game.finish()


@pytest.mark.parametrize(
    ("action", "bits"), [(0.0, 2), (0.125, 2), (0.126, 4), (0.25, 4), (0.5, 4), (0.501, 8), (1.0, 8)]
)
def test_actions_mean_bits_by_nncfs_thresholds(action: float, bits: int) -> None:
    assert bits_of_action(action, (8, 2, 4)) == bits


def test_size_counts_every_weight_and_no_activation() -> None:
    assert _game().size([8, 4, 8]) == pytest.approx((800 + 4 * 100 + 8 * 300) / (32 * 500))
    assert _game().smallest == pytest.approx((800 + 2 * 100 + 4 * 300) / (32 * 500))


def test_a_quantizer_takes_the_nearest_bits_it_has() -> None:
    game = _game()
    assert _play(game, [0.0, 0.0, 0.0]) == (2 + 2 + 4, [0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (1.0, [8, 8, 8]),
        (0.2, [8, 8, 4]),  # 4000 -> 2800 of 16000 bits: the last weight first
        (0.17, [8, 4, 4]),  # then the one before it
        (0.15, [8, 4, 4]),
        (0.14, [8, 2, 4]),  # again from the last, which is at its end
        (0.01, [8, 2, 4]),
    ],
)
def test_bits_are_lowered_from_the_last_weight_until_the_size_is_kept(target: float, expected: list[int]) -> None:
    assert _game(target=target).constrained([8, 8, 8]) == expected


def test_actions_of_lowered_bits_are_replaced_by_those_that_mean_them() -> None:
    game = _game(target=0.17)
    score, actions = _play(game, [0.9, 0.8, 0.7])
    assert (score, actions) == (16.0, [0.9, 0.5, 0.5])
    assert game.best == (16.0, (8, 4, 4))


def test_the_best_is_kept_whatever_comes_later() -> None:
    game = _game()
    for actions in ([0.5, 0.5, 0.5], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]):
        _play(game, actions)
    assert game.best == (24.0, (8, 8, 8))


def test_observations_are_normalized_and_end_in_the_last_action() -> None:
    game = _game()
    assert np.array_equal(game.reset(), np.array([0.0, 0.0, 1.0], dtype=np.float32))
    assert np.array_equal(game.act(0.25), np.array([1.0, 0.0, 0.25], dtype=np.float32))
    assert np.array_equal(game.act(0.5), np.array([1.0, 1.0, 0.5], dtype=np.float32))


@pytest.mark.parametrize(("score", "scale"), [(76.1, 0.1), (0.93, 10.0), (1.0, 1.0), (-0.25, 10.0), (0.0, 1.0)])
def test_rewards_are_brought_to_one_digit(score: float, scale: float) -> None:
    assert reward_scale(score) == pytest.approx(scale)
