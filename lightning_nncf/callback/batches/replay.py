"""Streams, which can be read only once: what is read ahead of training is kept and given to it afterwards."""

from __future__ import annotations

import copy
import io
import queue
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_nncf.callback.batches.generators import Drawn, drawing, passed

__all__ = ["Replayed", "is_stream"]

_DEPTH = 4


class Replayed:
    """A loader whose batches can be looked at before training gets them.

    It takes the loader's place in training and shows the loader's attributes. Number and order of the batches that it
    yields are the loader's.

    Args:
        source: The loader.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self._iterator: Iterator[Any] | None = None
        self._ahead: deque[tuple[Any, Drawn]] = deque()
        self._run = 0
        self._begun = False  # training has taken a batch of this run
        self._states: dict[str, Any] | None = None  # of the generators, where reading ahead goes on
        self._owed = False  # the run began for calibration: training has not drawn the seed of its workers

    def __iter__(self) -> Iterator[Any]:
        """Begin a run, or take over one that calibration has begun."""
        if self._iterator is None or self._begun:
            self._start()
        elif self._owed and isinstance(self.source, DataLoader) and self.source.generator is None:
            # as the iterator of a DataLoader does when it is made
            torch.empty((), dtype=torch.int64).random_()
        self._owed = False
        return self._take(self._run)

    def ahead(self) -> Iterator[Any]:
        """Yield copies of the batches that training is to get next."""
        if self._iterator is None:
            self._start_early()
        position = 0
        while True:
            if position >= len(self._ahead):
                batch, drawn = self._read_early()
                if batch is self:
                    if position or not self._begun:
                        return
                    # between two epochs: those of the next
                    self._start_early()
                    batch, drawn = self._read_early()
                    if batch is self:
                        return
                self._ahead.append((batch, drawn))
            # the step may write into its batch
            yield _duplicate(self._ahead[position][0])
            position += 1

    def __len__(self) -> int:
        """Return the loader's number of batches, if it has one."""
        return len(self.source)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the loader."""
        if name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)

    def _start(self) -> None:
        self._iterator = iter(self.source)
        if getattr(self.source, "num_workers", 0):
            # new workers begin where the data begins; what is in this process goes on
            self._ahead.clear()
        self._run += 1
        self._begun = False

    def _start_early(self) -> None:
        _, (_, self._states) = drawing(self._start)
        self._owed = True

    def _read_early(self) -> tuple[Any, Drawn]:
        """Return the next batch, or this object behind the last one, drawn as if nothing else drew in between."""
        iterator = self._iterator
        states = self._ahead[-1][1][1] if self._ahead else self._states
        return drawing(lambda: self if iterator is None else next(iterator, self), states)

    def _take(self, run: int) -> Iterator[Any]:
        while run == self._run and self._iterator is not None:
            self._begun = True
            if self._ahead:
                batch, drawn = self._ahead.popleft()
                passed(drawn)
                yield batch
                continue
            self._states = None
            try:
                batch = next(self._iterator)
            except StopIteration:
                return
            yield batch


def is_stream(loader: Any) -> bool:
    """Whether a loader goes on where its last reader stopped, as far as can be told without reading.

    That is so for iterators, and for what holds one: a generator, an open file, a queue. Data sets with indices are
    never streams.
    """
    if isinstance(loader, Replayed):
        return False
    if not isinstance(loader, DataLoader):
        return _streams(loader, 0)
    held = [value for name, value in vars(loader).items() if name not in ("dataset", "_iterator")]
    return any(_streams(value, 1) for value in held) or (
        isinstance(loader.dataset, IterableDataset) and _streams(loader.dataset, 0)
    )


def _streams(value: Any, depth: int) -> bool:
    if isinstance(value, (Iterator, io.IOBase, queue.Queue, queue.SimpleQueue)):
        return True
    if type(value).__module__.startswith(("multiprocessing.queues", "multiprocessing.connection")):
        return True
    if isinstance(value, (str, bytes, int, float, Tensor, nn.Module, type(None), type)) or depth >= _DEPTH:
        return False
    if isinstance(value, (list, tuple, set, deque, dict)):
        parts: Iterable[Any] = value.values() if isinstance(value, dict) else value
        return len(value) <= 100 and any(_streams(part, depth + 1) for part in parts)
    if isinstance(value, DataLoader):
        return is_stream(value)
    closure = getattr(getattr(type(value), "__iter__", None), "__closure__", None) or ()
    cells = [cell.cell_contents for cell in closure if cell.cell_contents is not value]
    if type(value).__module__.partition(".")[0] in ("torch", "builtins", "numpy"):
        # samplers and data sets of PyTorch hold those of users
        cells = []
    parts = [*vars(value).values(), *cells] if hasattr(value, "__dict__") and not callable(value) else cells
    return any(_streams(part, depth + 1) for part in parts)


def _duplicate(batch: Any) -> Any:
    try:
        return copy.deepcopy(batch)
    except Exception:
        return apply_to_collection(batch, Tensor, torch.clone)
