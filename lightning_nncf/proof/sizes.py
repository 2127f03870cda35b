"""Calls of sizes that the example did not have, for every dimension that a file leaves open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch

__all__ = ["BATCHES", "few", "open_dimensions", "other_sizes"]

BATCHES = (1, 3, 8)
"""Batch sizes that are proven beside the example's."""

Value = Any
"""A tensor, or an array of texts."""
Places = list[tuple[int, int]]
"""Where an open dimension is: inputs and their axes."""


def open_dimensions(inputs: Sequence[onnx.ValueInfoProto]) -> dict[str, Places]:
    """Return the open dimensions of a file by name, the batch first; one without a name is by itself.

    Args:
        inputs: The inputs of the file.
    """
    found: dict[str, Places] = {}
    for index, item in enumerate(inputs):
        for axis, dim in enumerate(item.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                found.setdefault(dim.dim_param or f"{item.name}[{axis}]", []).append((index, axis))
    return dict(sorted(found.items(), key=lambda item: item[1][0][1] != 0))


def other_sizes(
    tensors: Sequence[Value], inputs: Sequence[onnx.ValueInfoProto]
) -> Iterator[tuple[str, list[Value], bool]]:
    """Make calls with one open dimension changed at a time.

    Args:
        tensors: The example, flat.
        inputs: The inputs of the file.

    Yields:
        What is changed, as in ``batch 3``; the inputs; and whether every network must take that size, as with batches.
    """
    for name, places in open_dimensions(inputs).items():
        index, axis = places[0]
        size = tensors[index].shape[axis]
        is_batch = axis == 0
        base = list(tensors) if is_batch else few(tensors, inputs)
        wanted = BATCHES if is_batch else (1, 3, size // 2, 2 * size)
        for other in dict.fromkeys(wanted):
            if other not in (0, size):
                yield f"{name} {other}", _resized(base, places, other), is_batch


def few(tensors: Sequence[Value], inputs: Sequence[onnx.ValueInfoProto], samples: int = 4) -> list[Value]:
    """Keep a few samples of what has an open batch size."""
    kept = list(tensors)
    for places in open_dimensions(inputs).values():
        for index, axis in places:
            if axis == 0:
                kept[index] = kept[index][:samples]
    return kept


def _resized(tensors: Sequence[Value], places: Places, size: int) -> list[Value]:
    resized = list(tensors)
    generator = torch.Generator().manual_seed(size)
    for index, axis in places:
        resized[index] = _stretched(resized[index], axis, size, generator)
    return resized


def _stretched(tensor: Value, axis: int, size: int, generator: torch.Generator) -> Value:
    """Cut an axis, or go on with what it holds; samples that come again are shuffled within themselves, if of floats.

    A runtime that leaves old values in memory would be right by chance where a sample is the same as an earlier one.
    """
    present = tensor.shape[axis]
    if present == 0:
        return tensor
    if isinstance(tensor, np.ndarray):
        return np.take(tensor, np.arange(size) % present, axis)
    found = tensor.index_select(axis, torch.arange(size) % present)
    if axis == 0 and size > present and tensor.is_floating_point() and tensor.ndim > 1:
        again = found[present:].flatten(1)
        order = torch.rand(again.shape, generator=generator).argsort(1)
        found = torch.cat([found[:present], again.gather(1, order).reshape(found[present:].shape)])
    return found
