"""Dimensions that an op splits into several, as attention does with its heads."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lightning_nncf.dependencies.labels import Entries, Ids
from lightning_nncf.dependencies.values import Link, Records

__all__ = ["settle_splits"]

_COUNTS = frozenset({"num_heads", "n_heads", "n_head", "nhead", "heads", "num_attention_heads"})
"""Attributes in which modules keep their number of heads."""
_WIDTHS = frozenset({"attn_dim", "all_head_size", "inner_dim"})
"""Attributes in which modules keep the width of all heads."""


def settle_splits(entries: Entries, records: Records, modules: dict[str, nn.Module]) -> None:
    """Let only whole slices along one of the new dimensions be removed.

    Which one follows from how the slices are used; where it does not, it is the largest. Attributes of the module that
    hold the number of slices or the width of all follow it.

    Args:
        entries: The numbered entries.
        records: What rules found.
        modules: Modules of the network by path.
    """
    for op, ids in records.splits:
        labels = entries.labels()[ids]
        wide = [axis for axis in range(ids.ndim) if ids.shape[axis] > 1]
        free = next((axis for axis in wide if _only_along(labels, axis)), None)
        if free is None:
            free = max(wide, key=lambda each: ids.shape[each])
            flat = np.moveaxis(ids, free, -1).reshape(-1, ids.shape[free])
            entries.unite(flat, flat[:1])
        source = _weight_of(entries, records, ids)
        if source is None:
            continue
        name, dim, size = source
        count, after = ids.shape[free], prod(ids.shape[free + 1 :])
        module = modules[op.module]
        for attribute, value in vars(module).items():
            if isinstance(value, bool) or not isinstance(value, int):
                continue
            if attribute in _COUNTS and value == count:
                records.links[op.module, attribute] = Link(op.module, attribute, name, dim, size // count)
            elif attribute in _WIDTHS and value == count * after:
                records.links[op.module, attribute] = Link(op.module, attribute, name, dim, size // count, after)


def _only_along(labels: NDArray[np.int64], axis: int) -> bool:
    """Whether entries differ along one axis alone.

    >>> _only_along(np.array([[1, 1], [2, 2]]), 0), _only_along(np.array([[1, 2], [3, 4]]), 0)
    (True, False)
    """
    moved = np.moveaxis(labels, axis, -1).reshape(-1, labels.shape[axis])
    return bool((moved == moved[:1]).all())


def _weight_of(entries: Entries, records: Records, ids: Ids) -> tuple[str, int, int] | None:
    """Return name, dimension and size of the weight whose filters are these entries."""
    first = int(ids.flat[0])
    for (name, dim), numbers in entries.items():
        if records.roles.get((name, dim)) == "filter" and numbers[0] <= first <= numbers[-1]:
            return name, dim, numbers.size
    return None
