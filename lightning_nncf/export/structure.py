"""Nested inputs and outputs as flat tensors, and back, with a description that fits into a file's metadata."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_nncf.errors import ExportError

__all__ = ["flatten", "flatten_like", "has_list", "names_of", "rebuild"]


def flatten(value: object, where: str = "output") -> tuple[list[Tensor], dict[str, Any]]:
    """Split a nested value into its tensors and a JSON-able description of the nesting.

    Dataclasses, dicts, named tuples, tuples, lists, ``None`` and plain constants may hold the tensors.

    Args:
        value: What a network takes or returns.
        where: Name of the value in error messages.

    Returns:
        The tensors in order and the description for `rebuild`.

    Raises:
        ExportError: If something is neither a tensor, a container nor a plain constant.

    >>> import torch
    >>> tensors, structure = flatten({"logits": torch.zeros(2), "loss": None})
    >>> len(tensors), structure["keys"]
    (1, ['logits', 'loss'])
    """
    tensors: list[Tensor] = []
    return tensors, _describe(value, tensors, where)


def _describe(value: object, tensors: list[Tensor], where: str) -> dict[str, Any]:
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"kind": "tensor"}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"kind": "constant", "value": value}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return {"kind": "dataclass", "class": _class_name(value), **_keyed(fields, tensors, where)}
    if isinstance(value, Mapping):
        return {"kind": "dict", **_keyed(value, tensors, where)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields = dict(zip(value._fields, value, strict=True))
        return {"kind": "namedtuple", "class": _class_name(value), **_keyed(fields, tensors, where)}
    if isinstance(value, (tuple, list)):
        items = [_describe(item, tensors, f"{where}[{index}]") for index, item in enumerate(value)]
        return {"kind": "tuple" if isinstance(value, tuple) else "list", "items": items}
    raise ExportError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}; a network that is exported may take and "
        "return tensors, dataclasses, dicts, tuples, lists, None and plain constants"
    )


def _keyed(values: Mapping[Any, object], tensors: list[Tensor], where: str) -> dict[str, Any]:
    keys = [key if isinstance(key, (str, int)) else str(key) for key in values]
    return {"keys": keys, "items": [_describe(item, tensors, f"{where}.{key}") for key, item in values.items()]}


def _class_name(value: object) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def rebuild(structure: Mapping[str, Any], tensors: Sequence[Any]) -> Any:
    """Put tensors back into the nesting that `flatten` described.

    A dataclass or named tuple is rebuilt when its class is already imported, else it becomes a dict: nothing is
    imported because a file says so.

    Args:
        structure: Description made by `flatten`.
        tensors: As many tensors as there were.

    Returns:
        The nested value.

    >>> rebuild({"kind": "tuple", "items": [{"kind": "tensor"}, {"kind": "constant", "value": 3}]}, ["a"])
    ('a', 3)
    """
    return _build(structure, iter(tensors))


def _build(structure: Mapping[str, Any], tensors: Iterator[Any]) -> Any:
    kind = structure["kind"]
    if kind == "tensor":
        return next(tensors)
    if kind == "constant":
        return structure["value"]
    items = [_build(item, tensors) for item in structure["items"]]
    if kind in ("tuple", "list"):
        return tuple(items) if kind == "tuple" else items
    values = dict(zip(structure["keys"], items, strict=True))
    cls = None if kind == "dict" else _imported_class(structure["class"])
    return values if cls is None else cls(**values)


def _imported_class(name: str) -> Any:
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    usable = isinstance(found, type) and (dataclasses.is_dataclass(found) or hasattr(found, "_fields"))
    return found if usable else None


def flatten_like(structure: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the tensors of a call in the order in which the exported model wants them.

    Args:
        structure: Description of ``(args, kwargs)`` as they were at export.
        args: Positional arguments of this call.
        kwargs: Keyword arguments of this call, in any order.

    Returns:
        The tensors.

    Raises:
        ExportError: If the call does not fit the exported one.
    """
    arguments, keywords = structure["items"]
    given = dict(kwargs)
    ordered = {key: given.pop(key) for key in keywords["keys"] if key in given}
    tensors, _ = flatten((tuple(args), ordered), "input")
    expected = sum(1 for _ in _paths(structure, ""))
    if given or len(tensors) != expected:
        raise ExportError(
            f"the model was exported with {len(arguments['items'])} positional arguments, the keywords "
            f"{keywords['keys']} and {expected} tensors in them; got {len(args)} positional arguments, the keywords "
            f"{sorted(kwargs)} and {len(tensors)} tensors"
        )
    return tensors


def _paths(structure: Mapping[str, Any], path: str) -> Iterator[str]:
    if structure["kind"] == "tensor":
        yield path
    items = structure.get("items", ())
    keys = structure.get("keys", range(len(items)))
    for key, item in zip(keys, items, strict=True):
        yield from _paths(item, f"{path}.{key}" if path else str(key))


def has_list(structure: Mapping[str, Any]) -> bool:
    """Whether a list with tensors is somewhere in a structure.

    >>> has_list({"kind": "tuple", "items": [{"kind": "list", "items": [{"kind": "tensor"}]}]})
    True
    """
    items = structure.get("items", ())
    return (structure["kind"] == "list" and any(_paths(structure, ""))) or any(has_list(item) for item in items)


def names_of(structure: Mapping[str, Any], default: str) -> list[str]:
    """Name the tensors of a structure after their keys.

    Args:
        structure: Description made by `flatten`.
        default: Word for tensors that have only a position.

    Returns:
        One name per tensor, unique.

    >>> names_of({"kind": "dict", "keys": ["logits"], "items": [{"kind": "tensor"}]}, "output")
    ['logits']
    >>> names_of({"kind": "tensor"}, "output")
    ['output']
    """
    paths = list(_paths(structure, ""))
    names = []
    for index, path in enumerate(paths):
        keyed = any(not part.isdigit() for part in path.split(".")) and bool(path)
        names.append(path if keyed else default if len(paths) == 1 else f"{default}_{index}")
    return names
