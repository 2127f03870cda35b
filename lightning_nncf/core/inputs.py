"""What a network is called with: described in checkpoints, made again for export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nncf.config import InputInfo
from lightning_nncf.core.values import describe_values, make_values, merge_values
from lightning_nncf.errors import ConfigError

__all__ = [
    "Arguments",
    "arguments_of",
    "describe",
    "generate",
    "inputs_from_info",
    "limit_batch",
    "merge",
    "same_shapes",
    "tensor_descriptions",
]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one call."""


def arguments_of(batch: Any) -> Arguments:
    """Guess how a batch is given to a network.

    A tensor is the only argument, a mapping of strings holds keyword arguments, and of a list or tuple the first
    element counts, since the rest are targets.

    >>> arguments_of([torch.zeros(1), torch.ones(1)])
    ((tensor([0.]),), {})
    """
    if isinstance(batch, Mapping):
        return (), {str(key): value for key, value in batch.items()}
    if isinstance(batch, (list, tuple)) and batch:
        return arguments_of(batch[0])
    return (batch,), {}


def inputs_from_info(infos: Sequence[InputInfo], network: nn.Module) -> Arguments:
    """Make the inputs that the ``input_info`` of a configuration describes, on the network's device, of its type."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    types = (parameter.dtype for parameter in network.parameters() if parameter.is_floating_point())
    floating = next(types, torch.get_default_dtype())
    args: list[Tensor] = []
    kwargs: dict[str, Tensor] = {}
    for info in infos:
        dtype = torch.long if info.type == "long" else floating
        size = tuple(info.sample_size)
        if info.filler == "random":
            generator = torch.Generator().manual_seed(0)
            value = torch.rand(size, generator=generator).to(dtype)
        else:
            value = torch.full(size, int(info.filler == "ones"), dtype=dtype)
        if info.keyword is None:
            args.append(value.to(device))
        else:
            kwargs[info.keyword] = value.to(device)
    return tuple(args), kwargs


def describe(value: Any) -> Any:
    """Describe nested inputs by plain values: of tensors the shape, the dtype and which values they hold.

    Raises:
        ConfigError: A value is neither a tensor nor a plain one.

    >>> describe(([torch.zeros(2, 3)],))
    {'tuple': [{'list': [{'shape': [2, 3], 'dtype': 'float32', 'values': [0.0]}]}]}
    """
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return {"shape": list(value.shape), "dtype": dtype, **describe_values(value)}
    if isinstance(value, Mapping):
        return {"dict": {str(key): describe(item) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"list" if isinstance(value, list) else "tuple": [describe(item) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise ConfigError(
        f"the network is called with a {type(value).__name__}, which cannot be made again for export; "
        "give it tensors in lists, tuples or dicts, or describe its inputs with `input_info`"
    )


def generate(description: Any, generator: torch.Generator) -> Any:
    """Make inputs as `describe` described them, with random numbers.

    >>> generate(describe((torch.zeros(2),)), torch.Generator().manual_seed(0))[0].shape
    torch.Size([2])
    """
    if "shape" in description:
        return make_values(description, generator)
    if "dict" in description:
        return {key: generate(item, generator) for key, item in description["dict"].items()}
    if "list" in description:
        return [generate(item, generator) for item in description["list"]]
    if "tuple" in description:
        return tuple(generate(item, generator) for item in description["tuple"])
    return description["value"]


def merge(first: Any, second: Any, weight: float = 0.5) -> Any:
    """Describe what either of two inputs of the same kind held; shapes stay those of the first.

    Args:
        first: A description.
        second: Another one; where it is of another kind than the first, the first stays.
        weight: Share of the second, for what is not a border; 1 takes the values of the second alone.

    >>> merge(describe(torch.tensor([0, 1])), describe(torch.tensor([7])))["values"]
    [0, 1, 7]
    """
    if "shape" in first:
        alike = first["dtype"] == second.get("dtype")
        return merge_values(first, second, weight) if alike else first
    if "dict" in first:
        others = second.get("dict", {})
        return {"dict": {k: merge(v, others[k], weight) if k in others else v for k, v in first["dict"].items()}}
    for kind in ("list", "tuple"):
        if kind in first:
            others = second.get(kind, [])
            return {
                kind: [merge(a, b, weight) for a, b in zip(first[kind], others, strict=False)]
                + first[kind][len(others) :]
            }
    return first


def tensor_descriptions(description: Any) -> list[dict[str, Any]]:
    """List the descriptions of all tensors, in the order in which the tensors are met.

    >>> [found["shape"] for found in tensor_descriptions(describe((torch.zeros(2), {"a": torch.zeros(3)})))]
    [[2], [3]]
    """
    if "shape" in description:
        return [description]
    items = description["dict"].values() if "dict" in description else ()
    items = items or description.get("list") or description.get("tuple") or ()
    return [tensor for item in items for tensor in tensor_descriptions(item)]


def limit_batch(arguments: Arguments, samples: int) -> Arguments:
    """Keep the first samples of all tensors that share the batch dimension of the first one.

    >>> (x,), _ = limit_batch(((torch.zeros(8, 2),), {}), 3)
    >>> x.shape
    torch.Size([3, 2])
    """
    tensors = _tensors(arguments)
    if not tensors or tensors[0].ndim == 0:
        return arguments
    size = tensors[0].shape[0]

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[:samples] if value.ndim > 0 and value.shape[0] == size else value
        if isinstance(value, Mapping):
            return {key: cut(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(cut(item) for item in value)
        return value

    args, kwargs = cut(arguments)
    return args, kwargs


def same_shapes(first: Any, second: Any) -> bool:
    """Whether two inputs are nested alike, with tensors of the same types and of the same sizes but the first.

    >>> same_shapes(((torch.zeros(8, 3),), {}), ((torch.zeros(1, 3),), {}))
    True
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and first.ndim == second.ndim and first.shape[1:] == second.shape[1:]
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return list(first) == list(second) and all(same_shapes(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        alike = type(first) is type(second) and len(first) == len(second)
        return alike and all(map(same_shapes, first, second))
    return type(first) is type(second) and not isinstance(first, Tensor)


def _tensors(value: Any) -> list[Tensor]:
    """List the tensors in nested inputs."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in _tensors(item)]
