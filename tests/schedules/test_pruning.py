"""Published values of the pruning schedules (NNCF's tests) and their ends."""

from __future__ import annotations

import pytest

from lightning_nncf.schedules.pruning import (
    PRUNING_SCHEDULES,
    bias_coefficients,
    exponential_level,
    exponential_with_bias_level,
)


def test_exponential_reproduces_the_levels_of_the_zoo() -> None:
    levels = [exponential_level(epoch, 0.1, 0.4, 15) for epoch in range(15)]
    published = [
        0.1, 0.1257, 0.1507, 0.1749, 0.1984, 0.2213, 0.2436, 0.2652, 0.2861, 0.3065, 0.3263, 0.3455, 0.3642, 0.3824, 0.4
    ]  # fmt: skip
    assert levels == pytest.approx(published, abs=5e-5)


def test_coefficients_of_exponential_with_bias_are_the_published_ones() -> None:
    assert bias_coefficients(0.0, 0.5, 20) == pytest.approx((-0.5, 0.5, 0.5836), abs=1e-4)
    assert bias_coefficients(0.1, 0.7, 5)[2] == pytest.approx(2.46403, abs=1e-4)


def test_exponential_with_bias_reproduces_the_published_levels() -> None:
    levels = [exponential_with_bias_level(epoch, 0.1, 0.7, 5) for epoch in range(7)]
    assert levels == pytest.approx([0.1, 0.6489741, 0.6956869, 0.6996617, 0.7, 0.7, 0.7], abs=1e-6)


def test_exponential_with_bias_refuses_a_start_it_cannot_leave_fast_enough() -> None:
    with pytest.raises(ValueError, match=r"three quarters of the target, got 0\.4 and 0\.5"):
        bias_coefficients(0.4, 0.5, 10)


@pytest.mark.parametrize("name", sorted(PRUNING_SCHEDULES))
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_schedule_reaches_its_target_in_the_last_step_and_never_falls(name: str, steps: int) -> None:
    levels = [PRUNING_SCHEDULES[name](epoch, 0.1, 0.6, steps) for epoch in range(steps + 2)]
    assert levels == sorted(levels)
    assert levels[steps - 1 :] == [0.6, 0.6, 0.6]
