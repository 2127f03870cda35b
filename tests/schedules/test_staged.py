from __future__ import annotations

import pytest

from lightning_nncf.schedules.polynomial_drop import polynomial_drop
from lightning_nncf.schedules.staged import StagedScheduler


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        pytest.param((0, 0), [["a", "w"], [], []], id="at once"),
        pytest.param((1, 2), [[], ["a"], ["w"]], id="one after the other"),
    ],
)
def test_each_stage_begins_once_in_its_epoch(starts: tuple[int, int], expected: list[list[str]]) -> None:
    scheduler, begun = StagedScheduler(*starts), list[str]()
    scheduler.attach(lambda: begun.append("a"), lambda: begun.append("w"))
    seen = []
    for _ in range(3):
        before = len(begun)
        scheduler.epoch_step()
        seen.append(begun[before:])
    assert seen == expected


def test_nothing_begins_again_after_resuming() -> None:
    first = StagedScheduler(1, 1)
    first.epoch_step()
    first.epoch_step()
    resumed, begun = StagedScheduler(1, 1), list[str]()
    resumed.attach(lambda: begun.append("a"), lambda: begun.append("w"))
    resumed.load_state_dict(first.state_dict())
    resumed.epoch_step()
    assert begun == []


def test_progress_counts_fractions_of_an_epoch() -> None:
    scheduler = StagedScheduler(1, 1)
    scheduler.announce_steps(4)
    seen = []
    for _ in range(2):
        scheduler.epoch_step()
        for _ in range(4):
            scheduler.step()
            seen.append(scheduler.progress)
    assert seen == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]


def test_learning_rate_drops_with_power_2_1() -> None:
    assert polynomial_drop(69, 60, 30) == pytest.approx((21 / 30) ** 2.1)
    assert polynomial_drop(200, 60, 30) == 0
