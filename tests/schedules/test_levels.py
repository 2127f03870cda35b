"""Levels of every schedule against the values that NNCF publishes, recomputed by hand."""

from __future__ import annotations

import pytest

from lightning_nncf.errors import ConfigError
from lightning_nncf.schedules.level import (
    AdaptiveScheduler,
    ExponentialScheduler,
    LevelScheduler,
    MultistepScheduler,
    PolynomialScheduler,
)


def levels(scheduler: LevelScheduler, epochs: int, steps: int = 0) -> list[float]:
    seen = []
    for _ in range(epochs):
        scheduler.epoch_step()
        if not steps:
            seen.append(scheduler.level)
        for _ in range(steps):
            scheduler.step()
            seen.append(scheduler.level)
    return seen


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        pytest.param(PolynomialScheduler(0.2, 0.6, 2, 4, power=1), [0.2, 0.4, 0.6, 0.6, 0.6], id="polynomial"),
        pytest.param(ExponentialScheduler(0.2, 0.6, 2, 4), [0.2, 0.4343145, 0.6, 0.6, 0.6], id="exponential"),
        pytest.param(
            MultistepScheduler([2, 3, 4], [0.2, 0.4, 0.5, 0.6], 4), [0.2, 0.2, 0.4, 0.5, 0.6, 0.6], id="multistep"
        ),
        pytest.param(
            PolynomialScheduler(0.1, 0.5, 3, 9, power=2, concave=False), [0.1, 13 / 90, 25 / 90, 0.5], id="convex"
        ),
        pytest.param(PolynomialScheduler(0.1, 0.5, 3, 9, power=2), [0.1, 29 / 90, 41 / 90, 0.5], id="concave"),
        pytest.param(ExponentialScheduler(0.2, 0.6, 0, 1), [0.6, 0.6], id="exponential-at-once"),
        pytest.param(PolynomialScheduler(0.2, 0.6, 0, 1), [0.6, 0.6], id="polynomial-at-once"),
    ],
)
def test_levels_by_epoch_are_the_published_ones(scheduler: LevelScheduler, expected: list[float]) -> None:
    assert levels(scheduler, len(expected)) == pytest.approx(expected, abs=1e-6)


def test_levels_by_step_are_the_published_ones() -> None:
    scheduler = PolynomialScheduler(0.1, 0.5, 3, 9, power=2, concave=False, per_step=True, steps_per_epoch=3)
    expected = [0.1, 85 / 810, 97 / 810, 13 / 90, 145 / 810, 181 / 810]
    assert levels(scheduler, 2, steps=3) == pytest.approx(expected)


def test_first_epoch_counts_the_steps_when_nobody_says_how_many() -> None:
    scheduler = PolynomialScheduler(0.1, 0.5, 3, 9, power=2, concave=False, per_step=True)
    expected = [0.1, 0.1, 0.1, 13 / 90, 145 / 810, 181 / 810]
    assert levels(scheduler, 2, steps=3) == pytest.approx(expected)
    assert scheduler.steps_per_epoch == 3


def test_announced_steps_make_the_first_epoch_count() -> None:
    scheduler = PolynomialScheduler(0.1, 0.5, 3, 9, power=2, concave=False, per_step=True)
    scheduler.announce_steps(3)
    assert levels(scheduler, 1, steps=3) == pytest.approx([0.1, 85 / 810, 97 / 810])


def test_one_step_more_than_announced_is_an_error() -> None:
    scheduler = PolynomialScheduler(0, 0.5, 3, 9, per_step=True, steps_per_epoch=2)
    with pytest.raises(ConfigError, match="`steps_per_epoch` is 2, but epoch 0 has another optimizer step"):
        levels(scheduler, 1, steps=3)


def test_adaptive_level_rises_after_patience_and_stops_at_the_target() -> None:
    reached = iter([0.0, 0.18, 0.2, 0.1, 0.22, 0.24, 0.26, 0.28])
    scheduler = AdaptiveScheduler(0.2, 0.27, 100, patience=2, current=lambda: next(reached))
    assert levels(scheduler, 8) == pytest.approx([0.2, 0.2, 0.25, 0.25, 0.25, 0.27, 0.27, 0.27])


def test_freezing_is_announced_from_the_freeze_epoch_on_before_its_level() -> None:
    scheduler = ExponentialScheduler(0.0, 0.5, 1, 2)
    events: list[object] = []
    scheduler.attach(events.append, lambda: events.append("freeze"))
    levels(scheduler, 4)
    assert events == [0.0, 0.5, "freeze", 0.5, "freeze", 0.5]


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_scheduler_goes_on_from_its_state(stop: int) -> None:
    def make() -> PolynomialScheduler:
        return PolynomialScheduler(0.1, 0.5, 3, 9, power=2, per_step=True)

    def run(scheduler: PolynomialScheduler, first: int, last: int) -> list[float]:
        seen = []
        for step in range(first, last):
            if step % 2 == 0:
                scheduler.epoch_step()
            scheduler.step()
            seen.append(scheduler.level)
        return seen

    whole, first, second = make(), make(), make()
    head = run(first, 0, stop)
    second.load_state_dict(first.state_dict())
    assert head + run(second, stop, 8) == run(whole, 0, 8)
