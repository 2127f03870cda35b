"""Tensors inside nested values: the one order of tensors that traces and hooks both rely on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from lightning_nncf.graph.graph import TensorInfo

__all__ = ["describe", "replace_tensors", "tensors_in"]


def describe(tensor: torch.Tensor) -> TensorInfo:
    """Return the shape and dtype of a tensor.

    >>> describe(torch.zeros(2, 3))
    TensorInfo(shape=(2, 3), dtype='float32')
    """
    return TensorInfo(shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))


def tensors_in(*values: object) -> Iterator[torch.Tensor]:
    """Yield the tensors of nested tuples, lists, mappings and dataclasses, depth first.

    Args:
        values: Anything; what is neither a tensor nor one of these containers is skipped.

    >>> [tensor.item() for tensor in tensors_in((torch.tensor(1), {"a": [torch.tensor(2), None]}))]
    [1, 2]
    """
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_in(*value)
        elif isinstance(value, Mapping):
            yield from tensors_in(*value.values())
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from tensors_in(*(getattr(value, field.name) for field in dataclasses.fields(value)))


def replace_tensors(value: Any, change: Callable[[int, torch.Tensor], torch.Tensor]) -> Any:
    """Return a copy of a nested value with tensors exchanged; containers without a change stay the same objects.

    Args:
        value: A tensor or a container as `tensors_in` understands it.
        change: Gets the position of a tensor in the order of `tensors_in` and the tensor, returns its replacement.

    >>> replace_tensors((torch.tensor(1), [torch.tensor(2)]), lambda position, tensor: tensor + 10 * position)
    (tensor(1), [tensor(12)])
    """
    return _replace(value, change, 0)[0]


def _replace(value: Any, change: Callable[[int, torch.Tensor], torch.Tensor], position: int) -> tuple[Any, int]:
    if isinstance(value, torch.Tensor):
        return change(position, value), position + 1
    if isinstance(value, (tuple, list)):
        items: list[Any] = []
        for item in value:
            new, position = _replace(item, change, position)
            items.append(new)
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value, position
        if isinstance(value, list):
            return items, position
        return (type(value)(*items) if hasattr(value, "_fields") else type(value)(items)), position
    if isinstance(value, Mapping):
        changed: dict[Any, Any] = {}
        for key, item in value.items():
            new, position = _replace(item, change, position)
            if new is not item:
                changed[key] = new
        if not changed:
            return value, position
        if type(value) is dict:
            return {**value, **changed}, position
        copied: Any = copy.copy(value)
        for key, new in changed.items():
            copied[key] = new
        return copied, position
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        updates: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            new, position = _replace(item, change, position)
            if new is not item:
                updates[field.name] = new
        if not updates:
            return value, position
        duplicate = copy.copy(value)
        for name, new in updates.items():
            object.__setattr__(duplicate, name, new)
        return duplicate, position
    return value, position
