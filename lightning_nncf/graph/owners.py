"""Generated classes of modules whose own functions are hooked: their forward enters a function mode."""

from __future__ import annotations

import functools
import weakref
from typing import Any

from torch import nn

from lightning_nncf.graph.runtime import LocalMode, Scope

__all__ = ["SCOPE", "adopt", "release"]

SCOPE = "lnncf_scope"
"""Attribute of a hooked module that holds its `Scope`."""

_CLASSES: weakref.WeakKeyDictionary[type, type] = weakref.WeakKeyDictionary()


def adopt(module: nn.Module) -> None:
    """Give a module a subclass of its class whose forward enters a `LocalMode`."""
    base = type(module)
    if "_lnncf_base" not in base.__dict__:
        module.__class__ = _owner_class(base)


def release(module: nn.Module) -> None:
    """Give a module its own class back; without a scope the generated class does nothing."""
    base = type(module).__dict__.get("_lnncf_base")
    if base is None:
        return
    generated = type(module)
    bound = module.__dict__.get("forward")
    if bound is not None and getattr(bound, "__func__", None) is generated.__dict__["forward"]:
        # Left on the instance by trainers that redirect forward for a while.
        del module.__dict__["forward"]
    module.__class__ = base


def _owner_class(base: type) -> type:
    known = _CLASSES.get(base)
    if known is not None:
        return known
    plain_forward = base.forward  # type: ignore[attr-defined]

    @functools.wraps(plain_forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        scope: Scope | None = self.__dict__.get(SCOPE)
        if scope is None:
            return plain_forward(self, *args, **kwargs)
        if not scope.frames or scope.frames[-1].mode is not None:
            # forward was called directly: no hook has opened a frame.
            scope.open()
            try:
                return _run(plain_forward, scope, self, args, kwargs)
            finally:
                scope.close().end()
        return _run(plain_forward, scope, self, args, kwargs)

    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        state: dict[str, Any] = self.__getstate__()  # type: ignore[no-untyped-call]
        return _rebuild, (base,), state

    generated = type(
        base.__name__,
        (base,),
        {
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "__doc__": base.__doc__,
            "__reduce_ex__": reduce,
            "_lnncf_base": base,
            "forward": forward,
        },
    )
    _CLASSES[base] = generated
    return generated


def _run(plain_forward: Any, scope: Scope, module: nn.Module, args: Any, kwargs: Any) -> Any:
    frame = scope.frames[-1]
    frame.mode = mode = LocalMode(frame)
    with mode:
        return plain_forward(module, *args, **kwargs)


def _rebuild(base: type) -> Any:
    generated = _owner_class(base)
    return object.__new__(generated)
