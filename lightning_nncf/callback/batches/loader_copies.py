"""Copies of loaders over the same data, so that reading them changes nothing for those who read the originals."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from lightning_nncf.callback.batches.replay import Replayed, is_stream
from lightning_nncf.callback.running.snapshot import kept

__all__ = ["can_be_copied", "copied"]

_DATA_LIMIT = 2**20
_DEPTH = 4
_COPIED = (Sampler, BatchSampler, torch.Generator, random.Random, np.random.Generator, np.random.RandomState)


def can_be_copied(loader: Any) -> bool:
    """Whether reading a copy of a loader leaves what the loader itself yields as it is."""
    if is_stream(loader):
        return False
    try:
        _copy(loader, _shared(loader), 0)
    except (TypeError, AttributeError, RuntimeError, ValueError):  # what copying and pickling raise
        return False
    return True


@contextmanager
def copied(loaders: list[Any], *shared: Any) -> Iterator[list[Any]]:
    """Copy loaders, and put back at the end what reading the copies changed in the data that they share.

    Samplers and random generators are copied as they are now; worker processes are the copy's own and end with its
    iterator.

    Args:
        loaders: The loaders.
        shared: Objects that are never copied.

    Yields:
        One iterable per loader.
    """
    memo: dict[int, Any] = {id(each): each for each in shared}
    for loader in loaders:
        memo.update(_shared(loader))
    with ExitStack() as stack:
        result = []
        for loader in loaders:
            if isinstance(loader, Replayed):
                result.append(_Ahead(loader))
                continue
            roots = [loader]
            if isinstance(loader, DataLoader):
                collate = getattr(loader.collate_fn, "__self__", loader.collate_fn)
                roots = [loader.dataset, collate] if loader.num_workers == 0 else []
            if not can_be_copied(loader):
                rank_zero_warn(
                    f"a {type(loader).__name__} can be neither copied nor read twice, and training reads it already; "
                    "initialization takes batches that training will not get; let `NNCFCallback` come before what "
                    "asks the Trainer for its loaders"
                )
                roots += [getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
            stack.enter_context(kept(*roots, limit=_DATA_LIMIT))
            result.append(_copy(loader, memo, 0) if can_be_copied(loader) else _reader(loader))
        yield result


class _Ahead:
    """The batches that training is to get next from a stream."""

    def __init__(self, loader: Replayed) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return self._loader.ahead()

    def __len__(self) -> int:
        return len(self._loader)


def _reader(loader: Any) -> Any:
    """Return a loader that reads by itself from what another one reads."""
    if not isinstance(loader, DataLoader):
        return loader
    result = copy.copy(loader)
    vars(result).update(_iterator=None, persistent_workers=False)
    return result


def _copy(loader: Any, memo: dict[int, Any], depth: int) -> Any:
    """Copy a loader and the loaders in it."""
    if isinstance(loader, (list, tuple)) and not hasattr(loader, "_fields"):
        return type(loader)(_copy_part(part, memo, depth + 1) for part in loader)
    if isinstance(loader, dict):
        return {key: _copy_part(part, memo, depth + 1) for key, part in loader.items()}
    result = copy.copy(loader)
    attributes = getattr(result, "__dict__", None)
    if not isinstance(attributes, dict):
        return result
    for name, value in list(attributes.items()):
        if isinstance(loader, DataLoader) and name in ("sampler", "batch_sampler"):
            attributes[name] = copy.deepcopy(value, memo)
        elif name != "dataset":
            attributes[name] = _copy_part(value, memo, depth + 1)
    if isinstance(loader, DataLoader):
        # workers that live on belong to the original
        attributes.update(_iterator=None, persistent_workers=False)
        if "next_iter_state" in attributes:
            # a StatefulDataLoader that is to go on where a checkpoint stopped
            attributes["next_iter_state"] = None
    return result


def _copy_part(value: Any, memo: dict[int, Any], depth: int) -> Any:
    if isinstance(value, _COPIED):
        return copy.deepcopy(value, memo)
    if isinstance(value, Dataset) or depth > _DEPTH:
        return value
    if isinstance(value, DataLoader):
        return _copy(value, memo, depth)
    if isinstance(value, (list, tuple, dict)):
        parts = value.values() if isinstance(value, dict) else value
        if any(isinstance(part, (DataLoader, *_COPIED)) for part in parts):
            return _copy(value, memo, depth)
    return value


def _shared(loader: Any) -> dict[int, Any]:
    """Return the data sets of a loader, which samplers may hold and copies share, by id."""
    found: dict[int, Any] = {}
    waiting = [getattr(loader, "dataset", None)]
    while waiting:
        value = waiting.pop()
        if value is None or id(value) in found:
            continue
        found[id(value)] = value
        inner = [getattr(value, "dataset", None), *(getattr(value, "datasets", None) or ())]
        waiting.extend(each for each in inner if isinstance(each, Dataset))
    return found
