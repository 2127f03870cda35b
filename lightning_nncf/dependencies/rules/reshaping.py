"""How entries move when a tensor is given another shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_nncf.dependencies.labels import Ids

__all__ = ["blocks", "reshape_ids"]


def blocks(source: Sequence[int], target: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Match the dimensions of two shapes with equally many elements, in the smallest blocks with equal products.

    >>> blocks((2, 12, 5), (2, 3, 4, 5))
    [([0], [0]), ([1], [1, 2]), ([2], [3])]
    >>> blocks((2, 8, 7, 7), (2, 392))
    [([0], [0]), ([1, 2, 3], [1])]
    >>> blocks((2, 1, 3), (2, 3))
    [([0], [0]), ([1], []), ([2], [1])]
    """
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) or j < len(target):
        left, right = [], []
        if i < len(source) and (source[i] == 1) and (j >= len(target) or target[j] != 1):
            left.append(i)
            i += 1
        elif j < len(target) and target[j] == 1 and (i >= len(source) or source[i] != 1):
            right.append(j)
            j += 1
        else:
            left.append(i)
            right.append(j)
            a, b = source[i], target[j]
            i, j = i + 1, j + 1
            while a != b:
                if a < b:
                    left.append(i)
                    a *= source[i]
                    i += 1
                else:
                    right.append(j)
                    b *= target[j]
                    j += 1
        found.append((left, right))
    return found


def reshape_ids(ids: Ids, source: Sequence[int], target: Sequence[int]) -> tuple[Ids, list[Ids]]:
    """Give entries the shape that their tensor is given.

    Args:
        ids: Entries, rank of ``source``, size 1 where nothing is removed.
        source: Shape before.
        target: Shape after, with as many elements.

    Returns:
        The entries in the rank of ``target``, and those of every dimension that was split into several.

    >>> ids, splits = reshape_ids(np.arange(4).reshape(1, 4, 1, 1), (2, 4, 3, 3), (2, 36))
    >>> ids.shape, ids[0, :10].tolist(), len(splits)
    ((1, 36), [0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 0)
    """
    order: list[int] = []
    shape: list[int] = []
    full = list(ids.shape)
    splits: list[Ids] = []
    for left, right in blocks(source, target):
        tracked = any(ids.shape[axis] > 1 for axis in left)
        order += left
        if not tracked:
            shape += [1] * len(right)
            continue
        for axis in left:
            full[axis] = source[axis]
        sizes = [target[axis] for axis in right]
        shape += sizes
        if sum(size > 1 for size in sizes) > 1:
            wide = [source[axis] if axis in left else size for axis, size in enumerate(ids.shape)]
            inside = np.broadcast_to(ids, wide)
            if inside.size == np.prod(sizes):
                splits.append(inside.reshape(sizes))
    return np.broadcast_to(ids, full).reshape(shape), splits
