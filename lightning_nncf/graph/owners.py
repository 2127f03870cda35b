"""Generated classes of hooked modules.

The forward of modules whose own functions are hooked enters a function mode; that of batch norms asks first whether
somebody stands in for them.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nncf.graph.calls import close_call, open_call
from lightning_nncf.graph.frames import SCOPE, Scope
from lightning_nncf.graph.modes import LocalMode
from lightning_nncf.graph.stand_ins import StandIn

__all__ = ["STAND_IN", "adopt", "adopt_norm", "release"]

STAND_IN = "lnncf_stand_in"
"""Attribute of a batch norm that holds its `StandIn`."""

_CLASSES: weakref.WeakKeyDictionary[type, type] = weakref.WeakKeyDictionary()
_NORM_CLASSES: weakref.WeakKeyDictionary[type, type] = weakref.WeakKeyDictionary()


def adopt(module: nn.Module) -> None:
    """Give a module a subclass of its class whose forward enters a `LocalMode`."""
    if type(module) in _NORM_CLASSES.values():
        release(module)
    base = type(module)
    if "_lnncf_base" not in base.__dict__:
        module.__class__ = _owner_class(base)


def adopt_norm(norm: nn.Module) -> None:
    """Give a batch norm a subclass of its class whose forward leaves the work to a `StandIn` where one does it."""
    base = type(norm)
    if "_lnncf_base" not in base.__dict__:
        norm.__class__ = _norm_class(base)


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
            open_call(scope)
            try:
                return _run(plain_forward, scope, self, args, kwargs)
            finally:
                close_call(scope).end()
        return _run(plain_forward, scope, self, args, kwargs)

    generated = _CLASSES[base] = _subclass(base, forward, _rebuild)
    return generated


def _norm_class(base: type) -> type:
    known = _NORM_CLASSES.get(base)
    if known is not None:
        return known
    plain_forward = base.forward  # type: ignore[attr-defined]

    @functools.wraps(plain_forward)
    def forward(self: nn.Module, input: Tensor) -> Tensor:
        stand_in: StandIn | None = None if torch.compiler.is_compiling() else self.__dict__.get(STAND_IN)
        result = None if stand_in is None else stand_in.normalized(self, input)
        return plain_forward(self, input) if result is None else result

    generated = _NORM_CLASSES[base] = _subclass(base, forward, _rebuild_norm)
    return generated


def _subclass(base: type, forward: Any, rebuild: Callable[[type], Any]) -> type:
    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        state: dict[str, Any] = self.__getstate__()  # type: ignore[no-untyped-call]
        return rebuild, (base,), state

    return type(
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


def _run(plain_forward: Any, scope: Scope, module: nn.Module, args: Any, kwargs: Any) -> Any:
    frame = scope.frames[-1]
    frame.mode = mode = LocalMode(frame)
    with mode:
        return plain_forward(module, *args, **kwargs)


def _rebuild(base: type) -> Any:
    generated = _owner_class(base)
    return object.__new__(generated)


def _rebuild_norm(base: type) -> Any:
    generated = _norm_class(base)
    return object.__new__(generated)
