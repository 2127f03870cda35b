"""How a step calls the network: which parts of a batch are its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

__all__ = ["CallWatch", "NetworkCall"]

_Path = tuple[tuple[str, Any], ...]
_PLAIN = (bool, str, type(None), torch.dtype, torch.device)
"""Values that are taken to be the same for every batch; numbers may be lengths or times."""


_DEPTH = 6


class _UnknownPartError(Exception):
    """An argument is no part of the batch."""


@dataclass(frozen=True)
class NetworkCall:
    """The arguments of the network as parts of a batch.

    Args:
        positional: Gives each positional argument from a batch.
        keyword: Gives each keyword argument.
    """

    positional: tuple[Callable[[Any], Any], ...]
    keyword: Mapping[str, Callable[[Any], Any]]

    def arguments(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Take the arguments out of another batch.

        Raises:
            LookupError: The batch has another structure.
        """
        try:
            return tuple(part(batch) for part in self.positional), {k: part(batch) for k, part in self.keyword.items()}
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise LookupError(f"the batch has another structure: {error}") from error


class CallWatch:
    """Watches how one step calls the network.

    Args:
        module: The LightningModule, whose tensors may be arguments too.
        network: The network inside it.
        batch: The batch that the step is about to get.

    Attributes:
        calls: How often the step called the network and its call returned.
        inner: Whether the step called parts of the network by themselves.
    """

    def __init__(self, module: nn.Module, network: nn.Module, batch: Any) -> None:
        self.calls = 0
        self.inner = False
        self._network = network
        self._inside = {id(part) for part in network.modules()} - {id(network)}
        self._fixed = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        self._depth = 0
        self._found: NetworkCall | None = None
        # the parts are held, so that their ids stay theirs
        self._parts: dict[int, tuple[_Path, Any, tuple[tuple[int, int], ...]]] = {}
        self._index(batch, ())

    @property
    def reached(self) -> bool:
        """Whether the step ran the network or parts of it."""
        return self.calls > 0 or self.inner

    @property
    def call(self) -> NetworkCall | None:
        """How the network is called, if calling it alone does all that the step does with it."""
        return self._found if self.calls == 1 and not self.inner else None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what runs inside."""
        handles = [
            register_module_forward_pre_hook(self._enter_any),
            self._network.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True),
            self._network.register_forward_hook(self._leave, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter_any(self, module: nn.Module, _args: Any) -> None:
        if self._depth == 0 and id(module) in self._inside:
            self.inner = True

    def _enter(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._depth == 0 and self.calls == 0:
            try:
                self._found = NetworkCall(
                    tuple(self._part(value) for value in args), {name: self._part(v) for name, v in kwargs.items()}
                )
            except _UnknownPartError:
                self._found = None
        self._depth += 1

    def _leave(self, _module: nn.Module, _args: Any, result: Any) -> None:
        self._depth -= 1
        if self._depth == 0 and result is not None:
            self.calls += 1

    def _index(self, value: Any, path: _Path) -> None:
        """Note where each part of the batch is, and what it holds now."""
        if isinstance(value, (*_PLAIN, int, float, bytes)) or id(value) in self._parts or len(path) > _DEPTH:
            return
        self._parts[id(value)] = path, value, _leaves(value)
        for step, part in _children(value):
            self._index(part, (*path, step))

    def _part(self, value: Any) -> Callable[[Any], Any]:
        """Say where an argument is in a batch."""
        known = self._parts.get(id(value))
        if known is not None and known[1] is value and known[2] == _leaves(value):
            return _Follow(known[0])
        if isinstance(value, _PLAIN) or (isinstance(value, Tensor) and id(value) in self._fixed):
            return _Constant(value)
        if type(value) is dict:
            return _Rebuild(dict, tuple((key, self._part(item)) for key, item in value.items()))
        if type(value) in (list, tuple):
            return _Rebuild(type(value), tuple((None, self._part(item)) for item in value))
        raise _UnknownPartError


@dataclass(frozen=True)
class _Follow:
    path: _Path

    def __call__(self, batch: Any) -> Any:
        for kind, key in self.path:
            batch = batch[key] if kind == "item" else getattr(batch, key)
        return batch


@dataclass(frozen=True)
class _Constant:
    value: Any

    def __call__(self, _batch: Any) -> Any:
        return self.value


@dataclass(frozen=True)
class _Rebuild:
    kind: type
    parts: tuple[tuple[Any, Callable[[Any], Any]], ...]

    def __call__(self, batch: Any) -> Any:
        if self.kind is dict:
            return {key: part(batch) for key, part in self.parts}
        return self.kind(part(batch) for _, part in self.parts)


def _children(value: Any) -> list[tuple[tuple[str, Any], Any]]:
    if isinstance(value, Tensor):
        return []
    if isinstance(value, Mapping):
        return [(("item", key), item) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [(("item", index), item) for index, item in enumerate(value)]
    return [(("attribute", name), item) for name, item in getattr(value, "__dict__", {}).items()]


def _leaves(value: Any, depth: int = 0) -> tuple[tuple[int, int], ...]:
    """Return which tensors and other values something holds, and how often they were written to."""
    children = [] if depth > _DEPTH else _children(value)
    if children:
        return tuple(leaf for _, part in children for leaf in _leaves(part, depth + 1))
    return ((id(value), value._version if isinstance(value, Tensor) and not value.is_inference() else 0),)
