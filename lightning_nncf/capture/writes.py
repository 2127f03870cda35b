"""Parameters that a network writes in its own forward: codebooks that follow their data, weights kept below a norm.

A compressed value hides the parameter while a module that reads it runs, so that such a write would land there and be
gone with it. The parameter is left as it is, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["ParameterWrites"]

_LOOKUPS = frozenset({"embedding", "embedding_bag"})
"""Functions that write to their table if they are given a norm for its rows."""


class ParameterWrites:
    """Finds the writes to a network's parameters while it is captured, and takes them back.

    Writes are seen wherever the memory is reached from: through views, ``.data`` or ``.detach()``, too.

    Args:
        network: The network.
        found: Filled with the names of parameters that are written, each with the modules that run meanwhile.
    """

    def __init__(self, network: nn.Module, found: dict[str, set[str]]) -> None:
        self._found = found
        self._names: dict[int, set[str]] = {}
        self._parameters = dict(network.named_parameters())
        self._kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for name, parameter in self._parameters.items():
            self._own(name, parameter)

    def prepare(
        self, function: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], given: list[torch.Tensor]
    ) -> None:
        """Keep what a call of a function may overwrite.

        Args:
            function: Name of the function.
            args: Its positional arguments.
            kwargs: Its other arguments.
            given: The tensors among them.
        """
        if _may_write(function, args, kwargs):
            for name in self._reached(given):
                parameter = self._parameters[name]
                self._kept.setdefault(name, (parameter.data, parameter.detach().clone()))

    def note(
        self, function: str, args: tuple[Any, ...], changed: Iterable[torch.Tensor], running: Iterable[str]
    ) -> None:
        """Note what a call of a function has changed.

        Args:
            function: Name of the function.
            args: Its positional arguments.
            changed: The tensors that it changed in place.
            running: Paths of the modules that run.
        """
        names = set(self._reached(changed))
        if function == "data" and len(args) == 2:  # ``parameter.data = tensor``
            owned = {name for name, parameter in self._parameters.items() if parameter is args[0]} & self._kept.keys()
            for name in owned:
                self._own(name, self._parameters[name])
            names |= owned
        for name in names:
            self._found.setdefault(name, set()).update(running)

    def undo(self) -> None:
        """Give all parameters the memory and the values that they had."""
        for name, (data, values) in self._kept.items():
            self._parameters[name].data = data.copy_(values)
        self._kept.clear()

    def _own(self, name: str, parameter: torch.Tensor) -> None:
        memory = _memory(parameter)
        if memory:
            self._names.setdefault(memory, set()).add(name)

    def _reached(self, tensors: Iterable[torch.Tensor]) -> list[str]:
        return [name for tensor in tensors for name in self._names.get(_memory(tensor), ())]


def _may_write(function: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function may change its arguments, which torch tells by names."""
    if function in _LOOKUPS:
        return (args[3] if len(args) > 3 else kwargs.get("max_norm")) is not None
    in_place = function.startswith("__i") or function == "__setitem__" or function.endswith("_")
    return in_place or "out" in kwargs or (function == "data" and len(args) == 2)


def _memory(tensor: torch.Tensor) -> int:
    """Return where the memory of a tensor begins; 0 if it has none of its own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError, ValueError):  # not made yet, or spread over processes
        return 0
