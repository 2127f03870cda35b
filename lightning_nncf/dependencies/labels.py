"""Which entries of which tensors must be removed together: numbered entries and equalities between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Entries", "Freeze", "Ids", "components"]

Ids = NDArray[np.int64]
"""Numbers of entries; in an array that describes a tensor, a size of 1 stands for a dimension removed nowhere."""


@dataclass(frozen=True)
class Freeze:
    """Entries that must stay, and why.

    Args:
        ids: Their numbers.
        reason: Why, for people.
        address: The op that needs them.
    """

    ids: Ids
    reason: str
    address: str


class Entries:
    """Entries along dimensions of parameters, numbered once, with equalities and vetoes collected between them.

    >>> entries = Entries()
    >>> a, b = entries.of("conv1.weight", 0, 2), entries.of("conv2.weight", 1, 2)
    >>> entries.unite(a, b)
    >>> entries.labels().tolist()
    [0, 1, 0, 1]
    """

    def __init__(self) -> None:
        self.count = 0
        self.frozen: list[Freeze] = []
        self._of: dict[tuple[str, int], Ids] = {}
        self._left: list[Ids] = []
        self._right: list[Ids] = []
        self._labels: Ids | None = None

    def of(self, parameter: str, dim: int, size: int) -> Ids:
        """Return the numbers of the entries along one dimension of a parameter, shape [size]."""
        key = (parameter, dim)
        if key not in self._of:
            self._of[key] = np.arange(self.count, self.count + size, dtype=np.int64)
            self.count += size
            self._labels = None
        return self._of[key]

    def items(self) -> Iterator[tuple[tuple[str, int], Ids]]:
        """Yield ``(parameter, dim)`` and the numbers of its entries."""
        yield from self._of.items()

    def unite(self, left: Ids, right: Ids) -> None:
        """State that entries, in arrays that broadcast against each other, are removed together."""
        a, b = np.broadcast_arrays(left, right)
        self._left.append(a.ravel())
        self._right.append(b.ravel())
        self._labels = None

    def freeze(self, ids: Ids, reason: str, address: str) -> None:
        """State that entries must stay."""
        self.frozen.append(Freeze(np.unique(ids), reason, address))

    def labels(self) -> Ids:
        """Return for each entry the smallest number among those removed together with it, shape [count]."""
        if self._labels is None:
            empty: list[Any] = [np.zeros(0, dtype=np.int64)]
            self._labels = components(
                self.count, np.concatenate(self._left or empty), np.concatenate(self._right or empty)
            )
        return self._labels


def components(count: int, left: Ids, right: Ids) -> Ids:
    """Return the connected components of a graph, each named by its smallest node.

    Args:
        count: Number of nodes.
        left: One end of each edge.
        right: The other end.

    >>> components(5, np.array([0, 3]), np.array([3, 4])).tolist()
    [0, 1, 2, 0, 0]
    """
    label = np.arange(count, dtype=np.int64)
    while True:
        a, b = label[left], label[right]
        if np.array_equal(a, b):
            return label
        differ = a != b
        low, high = np.minimum(a, b)[differ], np.maximum(a, b)[differ]
        left, right = left[differ], right[differ]
        # Hook the larger root below the smaller one, then let every node point at its root.
        np.minimum.at(label, high, low)
        while True:
            above = label[label]
            if np.array_equal(above, label):
                break
            label = above
