from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_nncf.calibration import CalibrationData, run, run_batches
from lightning_nncf.errors import InitializationError


class Batches:
    """Batches of given sizes that count how many were loaded."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.loaded = 0

    def __iter__(self) -> Iterator[Tensor]:
        for size in self.sizes:
            self.loaded += 1
            yield torch.zeros(size)


def data(batches: Batches, **options: Any) -> tuple[CalibrationData, list[int]]:
    ran: list[int] = []
    return CalibrationData(
        batches=batches, forward=lambda batch: ran.append(len(batch)), batch_size=len, **options
    ), ran


@pytest.mark.parametrize(
    ("sizes", "num_samples", "expected"),
    [
        ((4, 4, 4, 4), 8, [4, 4]),
        ((4, 4, 4, 4), 9, [4, 4, 4]),
        ((4, 4, 4, 4), 1, [4]),
        ((4, 4), 100, [4, 4]),
        ((4, 1, 4, 4), 8, [4, 1, 4]),
        ((4, 4), 0, []),
    ],
)
def test_just_enough_batches_are_loaded_and_run(sizes: tuple[int, ...], num_samples: int, expected: list[int]) -> None:
    batches = Batches(*sizes)
    given, ran = data(batches)
    assert run(given, num_samples, "Ranges") == sum(expected)
    assert ran == expected
    assert batches.loaded == len(expected)


def test_batches_can_be_iterated_again() -> None:
    given, ran = data(Batches(2, 2))
    assert [run(given, 4, "Ranges"), run(given, 2, "Ranges")] == [4, 2]
    assert ran == [2, 2, 2]


def test_gradients_are_off_inside_and_as_before_outside() -> None:
    modes: list[bool] = []
    given = CalibrationData(
        batches=[torch.zeros(1)] * 2, forward=lambda _: modes.append(torch.is_grad_enabled()), batch_size=len
    )
    outside = [torch.is_grad_enabled() for _ in run_batches(given, 2, "Ranges")]
    assert modes == [False, False]
    assert outside == [True, True]


def test_progress_wraps_the_batches_with_their_number() -> None:
    shown: list[tuple[int, str]] = []

    def progress(batches: Iterable[Any], total: int, description: str) -> Iterable[Any]:
        shown.append((total, description))
        return batches

    given, ran = data(Batches(4, 4, 4), progress=progress)
    run(given, 6, "Ranges")
    assert shown == [(2, "Ranges")]
    assert len(ran) == 2


def test_an_empty_loader_is_an_error_that_says_what_to_do() -> None:
    given, _ = data(Batches())
    with pytest.raises(InitializationError, match="Batch-norm adaptation needs data, but the loader gave no batch"):
        run(given, 10, "Batch-norm adaptation")


def test_a_process_without_data_is_no_error_while_another_has_some() -> None:
    given, _ = data(Batches(), reduce=lambda values, operation: values + 5)
    assert run(given, 10, "Ranges") == 0


@pytest.mark.parametrize("fails", [False, True])
def test_a_loader_left_in_the_middle_cleans_up_at_once(fails: bool) -> None:
    events: list[str] = []

    def load() -> Iterator[Tensor]:
        try:
            yield from (torch.zeros(2), torch.zeros(2))
        finally:
            events.append("closed")

    class Loader:
        def __iter__(self) -> Iterator[Tensor]:
            return load()

    def forward(batch: Tensor) -> None:
        if fails:
            raise KeyError("broken")

    given = CalibrationData(batches=Loader(), forward=forward, batch_size=len)
    try:
        run(given, 2, "Ranges")
    except KeyError:
        events.append("failed")
    assert events == (["closed", "failed"] if fails else ["closed"])
