"""Compact plain form of lists of indices, which are mostly ranges."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_nncf.dependencies.labels import Ids

__all__ = ["pack", "unpack"]


def pack(indices: Ids) -> dict[str, Any]:
    """Write indices as runs of consecutive numbers, each number repeated, if that is shorter than a list.

    >>> pack(np.array([4, 4, 5, 5, 6, 6]))
    {'start': 4, 'count': 3, 'repeat': 2}
    >>> pack(np.array([3, 1]))
    {'list': [3, 1]}
    """
    if indices.size:
        start = int(indices[0])
        repeat = int(np.argmax(indices != start)) or indices.size
        count = indices.size // repeat
        packed = {"start": start, "count": count, "repeat": repeat}
        if np.array_equal(unpack(packed), indices):
            return packed
    return {"list": indices.tolist()}


def unpack(packed: dict[str, Any]) -> Ids:
    """Read `pack`.

    >>> unpack({"start": 4, "count": 2, "repeat": 2}).tolist()
    [4, 4, 5, 5]
    """
    if "list" in packed:
        return np.array(packed["list"], dtype=np.int64)
    return np.repeat(np.arange(packed["start"], packed["start"] + packed["count"]), packed["repeat"])
