"""Tensors inside nested values: the one order of tensors that traces and hooks both rely on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from lightning_nncf.graph.graph import TensorInfo

__all__ = ["describe", "has_values", "replace_tensors", "tensors_in"]


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


def has_values(*values: object) -> bool:
    """Return whether there is a floating point tensor with dimensions: something that compression can change.

    Single numbers are none: exporters make tensors of sizes and what is computed from them.

    >>> has_values(torch.zeros(2), {"mask": None}), has_values(torch.zeros(2, dtype=torch.int64), torch.tensor(0.5))
    (True, False)
    """
    return any(tensor.ndim > 0 and tensor.is_floating_point() for tensor in tensors_in(*values))


def replace_tensors(value: Any, change: Callable[[int, torch.Tensor], torch.Tensor]) -> Any:
    """Return a copy of a nested value with tensors exchanged; containers without a change stay the same objects.

    Args:
        value: A tensor or a container as `tensors_in` understands it.
        change: Gets the position of a tensor in the order of `tensors_in` and the tensor, returns its replacement.

    >>> replace_tensors((torch.tensor(1), [torch.tensor(2)]), lambda position, tensor: tensor + 10 * position)
    (tensor(1), [tensor(12)])
    """
    return _replace(value, change, 0)[0]


def _replace(value: Any, change: Callable[[int, torch.Tensor], torch.Tensor], position: int) -> tuple[Any, int, bool]:
    """Return the new value, the next position and whether anything changed.

    The flag is carried along because the compiler cannot compare containers by identity.
    """
    if isinstance(value, torch.Tensor):
        new = change(position, value)
        return new, position + 1, new is not value
    if isinstance(value, (tuple, list)):
        items: list[Any] = []
        any_changed = False
        for item in value:
            new, position, changed = _replace(item, change, position)
            any_changed = any_changed or changed
            items.append(new)
        if not any_changed:
            return value, position, False
        if isinstance(value, list):
            return items, position, True
        return (type(value)(*items) if hasattr(value, "_fields") else type(value)(items)), position, True
    if isinstance(value, Mapping):
        return _replace_named(value, list(value.items()), change, position)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return _replace_named(value, named, change, position)
    return value, position, False


def _replace_named(
    value: Any, named: list[tuple[Any, Any]], change: Callable[[int, torch.Tensor], torch.Tensor], position: int
) -> tuple[Any, int, bool]:
    updates: dict[Any, Any] = {}
    for name, item in named:
        new, position, changed = _replace(item, change, position)
        if changed:
            updates[name] = new
    if not updates:
        return value, position, False
    if type(value) is dict:
        return {**value, **updates}, position, True
    duplicate = copy.copy(value)
    for name, new in updates.items():
        if isinstance(value, Mapping):
            duplicate[name] = new
        else:
            object.__setattr__(duplicate, name, new)
    return duplicate, position, True
