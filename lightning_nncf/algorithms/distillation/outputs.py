"""Pairs what two networks return."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from lightning_nncf.errors import ConfigError

__all__ = ["named_tensors", "paired"]

_DIMENSIONS = {"softmax": range(2, 3), "mse": range(2, 1 << 10)}


def named_tensors(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """Yield the tensors of nested lists, tuples, mappings and dataclasses with the keys that lead to them.

    >>> import torch
    >>> [path for path, _ in named_tensors({"logits": torch.zeros(1), "layers": [torch.zeros(1)]})]
    [('logits',), ('layers', 0)]
    """
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_tensors(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from named_tensors(item, (*path, index))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from named_tensors(getattr(value, field.name), (*path, field.name))


def paired(student: Any, teacher: Any, kind: str, *, learns: bool = True) -> list[tuple[Tensor, Tensor]]:
    """Pair the outputs of two networks by where they are.

    Args:
        student: What the network returned.
        teacher: What its teacher returned for the same inputs.
        kind: ``mse`` takes tensors of at least two dimensions, ``softmax`` those of two.
        learns: Take only what has gradients in the student.

    Returns:
        The student's tensor and the teacher's, for each place where both have one.

    Raises:
        ConfigError: There is none, or two have different shapes.
    """
    known = dict(named_tensors(teacher))
    fits = _DIMENSIONS[kind]
    own = [
        (path, tensor)
        for path, tensor in named_tensors(student)
        if tensor.is_floating_point() and tensor.ndim in fits and (tensor.requires_grad or not learns)
    ]
    pairs = [(path, tensor, known[path]) for path, tensor in own if path in known]
    for path, mine, other in pairs:
        if mine.shape != other.shape:
            raise ConfigError(
                f"`knowledge_distillation.teacher`: output {_written(path)} of the network is {list(mine.shape)} and "
                f"that of its teacher {list(other.shape)}; take a teacher with the same outputs"
            )
    if not pairs:
        raise ConfigError(
            f"`knowledge_distillation.type: {kind}` takes outputs of "
            f"{'2' if kind == 'softmax' else 'at least 2'} dimensions that the network and its teacher both have; "
            f"the network returns {_shapes(student)}, the teacher {_shapes(teacher)}. `type: mse` takes other shapes; "
            "`teacher.mode: train` lets the teacher return what it returns in training"
        )
    return [(mine, other) for _, mine, other in pairs]


def _written(path: tuple[Any, ...]) -> str:
    return repr(".".join(map(str, path))) if path else "of the call"


def _shapes(value: Any) -> str:
    found = [
        f"{list(tensor.shape)} {_written(path)}" if path else str(list(tensor.shape))
        for path, tensor in named_tensors(value)
    ]
    return ", ".join(found[:6]) or "no tensor"
