"""What Python objects hold, noted and put back in place: attributes, containers, tensors and random generators."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["Snapshot", "kept"]

_SMALL = 1000
"""Longer containers are restored themselves, but nothing is looked for inside them."""
_DEPTH = 8
_FOREIGN = (
    "builtins",
    "lightning",
    "lightning_fabric",
    "lightning_nncf",
    "lightning_utilities",
    "logging",
    "multiprocessing",
    "numpy",
    "pytorch_lightning",
    "threading",
    "torch",
)
"""Packages whose objects are left alone, unless they are modules, optimizers or of the kinds handled by name."""
_NUMBERS = (bool, int, float, str, type(None))
_HOLDERS = (list, dict, set, deque, tuple, Tensor, np.ndarray)
"""What of a class may be state of its objects: not functions, descriptors or other classes."""
_STRUCTURE = ("_parameters", "_buffers", "_modules")
_HOOKS = tuple(name for name, value in vars(nn.Module()).items() if name.endswith("hooks") and isinstance(value, dict))


class Snapshot:
    """Notes what objects hold, and puts it back: lists and dicts keep their identity, tensors their memory.

    Followed are attributes of modules and plain objects, what their classes hold, lists, tuples, dicts, sets and
    deques. Hooks and what this package inserts are left alone.

    Args:
        roots: Objects to begin with.
        untouched: Modules of which only the plain attributes are noted, neither tensors nor what else is registered.
        ignored: Tensors that are left alone.
        limit: Tensors and arrays of more bytes are not copied; if a tensor among them changes, a warning says so.
    """

    def __init__(
        self,
        roots: Iterable[Any],
        *,
        untouched: Collection[nn.Module] = (),
        ignored: Iterable[Tensor] = (),
        limit: int = 2**28,
    ) -> None:
        self._untouched = {id(module) for module in untouched}
        own = [(*module.parameters(recurse=False), *module.buffers(recurse=False)) for module in untouched]
        self._own = {id(tensor) for tensors in (ignored, *own) for tensor in tensors}
        self._limit = limit
        self._undo: list[Callable[[], None]] = []
        self._seen: dict[int, Any] = {}  # held, so that their ids stay theirs
        for root in roots:
            self._note(root, 0, root=True)
        self._seen.clear()

    def restore(self) -> None:
        """Put everything back that changed."""
        with torch.no_grad():
            for undo in self._undo:
                undo()

    def _note(self, value: Any, depth: int, *, root: bool = False) -> None:
        if isinstance(value, (str, bytes, int, float, type(None), type)) or id(value) in self._seen or depth > _DEPTH:
            return
        self._seen[id(value)] = value
        if isinstance(value, Tensor):
            if id(value) not in self._own:
                self._note_tensor(value)
        elif isinstance(value, np.ndarray):
            if value.nbytes <= self._limit and value.flags.writeable and value.dtype != object:
                self._undo.append(_array(value))
        elif (generator := _generator(value)) is not None:
            self._undo.append(generator)
        elif isinstance(value, (list, deque)):
            self._undo.append(_sequence(value))
            self._follow(value, depth)
        elif isinstance(value, dict):
            self._undo.append(_mapping(value))
            self._follow(value.values(), depth)
        elif isinstance(value, set):
            self._undo.append(_set(value))
        elif isinstance(value, tuple):
            self._follow(value, depth)
        elif isinstance(value, nn.Module):
            self._note_module(value, depth)
        elif root or _plain(value):
            self._note_object(value, depth)

    def _follow(self, values: Collection[Any], depth: int) -> None:
        if len(values) <= _SMALL:
            for value in list(values):
                self._note(value, depth + 1)

    def _note_module(self, module: nn.Module, depth: int) -> None:
        self._note_classes(module, depth)
        attributes = module.__dict__
        self._undo.append(_attributes(attributes, {*_STRUCTURE, *_HOOKS, "_trainer", "_fabric"}))
        for name, value in list(attributes.items()):
            if name not in _STRUCTURE and name not in _HOOKS and name not in ("_trainer", "_fabric"):
                self._note(value, depth + 1)
        if id(module) not in self._untouched:
            for name in _STRUCTURE:
                self._undo.append(_mapping(attributes[name]))
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                self._note(tensor, depth + 1)
        for name, child in module.named_children():
            if not name.startswith("lnncf_"):
                self._note(child, 0)

    def _note_classes(self, value: Any, depth: int) -> None:
        """Note what the classes that a user wrote hold for all their objects."""
        for kind in type(value).__mro__:
            if id(kind) in self._seen or kind.__module__.partition(".")[0] in _FOREIGN:
                continue
            self._seen[id(kind)] = kind
            held = {name: each for name, each in vars(kind).items() if not name.startswith("__")}
            self._undo.append(_class_values(kind, {k: v for k, v in held.items() if isinstance(v, _NUMBERS)}))
            self._follow([each for each in held.values() if isinstance(each, _HOLDERS)], depth)

    def _note_object(self, value: Any, depth: int) -> None:
        self._note_classes(value, depth)
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self._undo.append(_attributes(attributes, ()))
            self._follow(attributes.values(), depth)
        slots = [name for each in type(value).__mro__ for name in _slots(each) if hasattr(value, name)]
        if slots:
            held = {name: getattr(value, name) for name in slots}
            self._undo.append(_slotted(value, held))
            self._follow(held.values(), depth)

    def _note_tensor(self, tensor: Tensor) -> None:
        if is_lazy(tensor) or tensor.is_inference():
            return
        version = tensor._version
        wanted, grad = tensor.requires_grad, tensor.grad if tensor.is_leaf else None
        small = tensor.numel() * tensor.element_size() <= self._limit and tensor.layout == torch.strided
        value = tensor.detach().clone() if small and tensor.device.type != "meta" else None
        if grad is not None:
            self._note(grad, 0)

        def undo() -> None:
            if tensor.is_leaf and tensor.requires_grad != wanted:
                tensor.requires_grad_(wanted)
            if tensor.is_leaf and tensor.grad is not grad:
                tensor.grad = grad
            if value is None:
                if tensor._version != version:
                    rank_zero_warn(
                        f"a tensor of shape {list(tensor.shape)} that the module holds was changed by a step that ran "
                        "for initialization; it is too large to be restored"
                    )
            elif tensor._version != version or not _equal(tensor, value):
                # a graph of autograd that is still needed does not count this as a change
                tensor.data.copy_(value)

        self._undo.append(undo)


@contextmanager
def kept(
    *roots: Any, untouched: Collection[nn.Module] = (), ignored: Iterable[Tensor] = (), limit: int = 2**28
) -> Iterator[None]:
    """Put back at the end what objects hold now, see `Snapshot`."""
    snapshot = Snapshot(roots, untouched=untouched, ignored=ignored, limit=limit)
    try:
        yield
    finally:
        snapshot.restore()


def _plain(value: Any) -> bool:
    """Whether an object is of a class that a user wrote, as far as can be told."""
    kind = type(value)
    if isinstance(value, torch.optim.Optimizer):
        return True
    return kind.__module__.partition(".")[0] not in _FOREIGN and (
        hasattr(value, "__dict__") or any(True for each in kind.__mro__ for _ in _slots(each))
    )


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if not name.startswith("__"))


def _equal(tensor: Tensor, value: Tensor) -> bool:
    # Writing through `.data` or NumPy leaves the version as it was.
    return tensor.shape == value.shape and torch.equal(tensor.detach(), value)


def _generator(value: Any) -> Callable[[], None] | None:
    """Return what puts a random generator back, if it is one."""
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state) and None  # type: ignore[return-value]
    if isinstance(value, random.Random):
        internal = value.getstate()
        return lambda: value.setstate(internal)
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        bit_state = bits.state
        return lambda: setattr(bits, "state", bit_state)
    if isinstance(value, np.random.RandomState):
        legacy = value.get_state()
        return lambda: value.set_state(legacy)
    return None


def _array(array: Any) -> Callable[[], None]:
    held = array.copy()
    return lambda: np.copyto(array, held)


def _sequence(values: list[Any] | deque[Any]) -> Callable[[], None]:
    held = list(values)

    def undo() -> None:
        if not _same(values, held):
            values.clear()
            values.extend(held)

    return undo


def _mapping(values: dict[Any, Any]) -> Callable[[], None]:
    held = list(dict.items(values))

    def undo() -> None:
        now = list(dict.items(values))
        if not _same([part for item in now for part in item], [part for item in held for part in item]):
            dict.clear(values)
            for key, value in held:
                dict.__setitem__(values, key, value)

    return undo


def _slotted(value: Any, held: dict[str, Any]) -> Callable[[], None]:
    def undo() -> None:
        for name, old in held.items():
            setattr(value, name, old)

    return undo


def _class_values(kind: type, held: dict[str, Any]) -> Callable[[], None]:
    def undo() -> None:
        for name, old in held.items():
            if vars(kind).get(name) is not old:
                setattr(kind, name, old)

    return undo


def _set(values: set[Any]) -> Callable[[], None]:
    held = list(values)

    def undo() -> None:
        set.clear(values)
        set.update(values, held)

    return undo


def _attributes(attributes: dict[str, Any], ignored: Collection[str]) -> Callable[[], None]:
    held = {name: value for name, value in attributes.items() if name not in ignored}

    def undo() -> None:
        for name in [name for name in attributes if name not in held and name not in ignored]:
            del attributes[name]
        attributes.update(held)

    return undo


def _same(now: Collection[Any], held: Collection[Any]) -> bool:
    return len(now) == len(held) and all(a is b for a, b in zip(now, held, strict=True))
