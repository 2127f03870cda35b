"""Names and plain values of the arguments of an op that are not tensors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from lightning_nncf.graph.addresses import function_name

__all__ = ["attributes_of"]

_NOTHING = object()


def attributes_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that are JSON-able, by the names of the function's signature or operator schema.

    Tensors and other objects are left out; dtypes, devices and slices become strings.

    >>> attributes_of(torch.conv2d, (torch.zeros(1, 2, 4, 4), torch.zeros(2, 1, 1, 1), None, (2, 2)), {"groups": 2})
    {'stride': [2, 2], 'groups': 2}
    >>> attributes_of(torch.Tensor.permute, (torch.zeros(2, 3), 1, 0), {})
    {'dims': [1, 0]}
    >>> attributes_of(torch.Tensor.__pow__, (torch.zeros(2), 2), {})
    {'exponent': 2}
    """
    pattern = tuple(_kind(arg) for arg in args)
    names = _names(function, pattern)
    values: dict[str, Any] = {}
    for position, arg in enumerate(args):
        plain = _plain(arg)
        if plain is _NOTHING:
            continue
        if position < len(names):
            values[names[position]] = plain
        elif names and isinstance(values.get(names[-1]), int) and isinstance(plain, int):
            values[names[-1]] = [values[names[-1]], plain]  # view(2, 3): sizes spread over the arguments
        elif names and isinstance(values.get(names[-1]), list):
            values[names[-1]].append(plain)
        else:
            values[f"arg{position}"] = plain
    for name, arg in kwargs.items():
        plain = _plain(arg)
        if plain is not _NOTHING:
            values[name] = plain
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        items = [None if item is None else _plain(item) for item in value]
        return _NOTHING if any(item is _NOTHING for item in items) else items
    if isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
        return str(value).removeprefix("torch.")
    if isinstance(value, slice) or value is Ellipsis:
        return str(value)
    return _NOTHING


def _kind(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, (tuple, list)):
        return "tensors" if any(isinstance(item, torch.Tensor) for item in value) else "list"
    if isinstance(value, str):
        return "str"
    if isinstance(value, (torch.dtype, torch.device)):
        return type(value).__name__
    return "none" if value is None else "value"


@functools.lru_cache(maxsize=4096)
def _names(function: Callable[..., Any], pattern: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the positional parameters, from the Python signature or the operator's schema."""
    if inspect.isfunction(function):
        # `x ** 2` is a Python function around a method of C, which has no signature
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if all(parameter.kind is not inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
            return tuple(parameter.name for parameter in parameters if parameter.kind in positional)
    packet: Any = getattr(torch.ops.aten, function_name(function), None)
    if not hasattr(packet, "overloads"):  # None, or a special method of the namespace object as for `__ne__`
        return ("self", "index") if function_name(function) in ("__getitem__", "__setitem__") else ()
    for overload in packet.overloads():
        arguments = getattr(packet, overload)._schema.arguments
        if _fits(arguments, pattern):
            return tuple(argument.name for argument in arguments)
    return ()


def _fits(arguments: list[Any], pattern: tuple[str, ...]) -> bool:
    for position, kind in enumerate(pattern):
        if position >= len(arguments):
            # The rest of sizes that are spread over several arguments.
            return kind == "value" and bool(arguments) and "List[int]" in str(arguments[-1].type)
        written = str(arguments[position].type)
        is_list = "List[" in written or "[]" in written
        is_tensor = "Tensor" in written
        if kind == "none" and "Optional" not in written and "?" not in written:
            return False
        if kind == "tensor" and (not is_tensor or is_list):
            return False
        if kind == "tensors" and not (is_tensor and is_list):
            return False
        if kind in ("dtype", "device"):
            if arguments[position].name != kind:
                return False
            continue
        if kind in ("list", "value", "str") and is_tensor:
            return False
        if kind == "list" and not is_list:
            return False
        if (kind == "str") != (written in ("str", "Optional[str]")) and kind != "none":
            return False
    return True
