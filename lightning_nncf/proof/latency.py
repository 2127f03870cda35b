"""Timing of several calls side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["interleaved_medians"]


def interleaved_medians(
    calls: Mapping[str, Callable[[], object]],
    runs: int,
    *,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Time calls in turn, so that a busy moment of the machine meets all of them.

    Args:
        calls: What to time, by name.
        runs: How often each is timed.
        warmup: Calls before timing starts.
        clock: What measures; ``time.process_time`` counts the work of all threads, which other programs disturb less.

    Returns:
        Median seconds by name.

    >>> sorted(interleaved_medians({"a": lambda: None, "b": lambda: None}, 3))
    ['a', 'b']
    """
    for call in calls.values():
        for _ in range(warmup):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            started = clock()
            call()
            times[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in times.items()}
