"""Modules whose own functions are hooked: a generated class enters a function mode in their forward."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from lightning_nncf.hooks.calls import close_call, open_call
from lightning_nncf.hooks.frames import HOOKED, HookedModule
from lightning_nncf.hooks.generated import is_generated, subclass
from lightning_nncf.hooks.modes import LocalMode

__all__ = ["adopt"]


def adopt(module: nn.Module) -> None:
    """Give a module a subclass of its class whose forward enters a `LocalMode`."""
    if not is_generated(module):
        module.__class__ = _owner_class(type(module))  # type: ignore[arg-type]


@functools.cache
def _owner_class(base: type) -> type:
    plain_forward = base.forward  # type: ignore[attr-defined]

    @functools.wraps(plain_forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        hooked: HookedModule | None = self.__dict__.get(HOOKED)
        if hooked is None:
            return plain_forward(self, *args, **kwargs)
        if not hooked.frames or hooked.frames[-1].mode is not None:
            # forward was called directly: no hook has opened a frame.
            open_call(hooked)
            try:
                return _run(plain_forward, hooked, self, args, kwargs)
            finally:
                close_call(hooked).end()
        return _run(plain_forward, hooked, self, args, kwargs)

    return subclass(base, forward, _rebuild)


def _run(plain_forward: Any, hooked: HookedModule, module: nn.Module, args: Any, kwargs: Any) -> Any:
    frame = hooked.frames[-1]
    frame.mode = mode = LocalMode(frame)
    with mode:
        return plain_forward(module, *args, **kwargs)


def _rebuild(base: type) -> Any:
    return object.__new__(_owner_class(base))
