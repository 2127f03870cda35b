"""Generated subclasses, by which a module of the user does more in its forward while it is hooked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_nncf.graph.kinds import BASE

__all__ = ["is_generated", "release", "subclass"]


def is_generated(module: nn.Module) -> bool:
    """Return whether a module has a generated class now."""
    return BASE in type(module).__dict__


def subclass(base: type, forward: Callable[..., Any], rebuild: Callable[[type], Any]) -> type:
    """Return a subclass with another forward, which looks the same from outside.

    Args:
        base: The class.
        forward: The forward.
        rebuild: Returns an instance without a state, given the class; has a name, so that instances can be pickled.
    """

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
            BASE: base,
            "forward": forward,
        },
    )


def release(module: nn.Module) -> None:
    """Give a module its own class back; without a `HookedModule` the generated one does nothing."""
    generated = type(module)
    base = generated.__dict__.get(BASE)
    if base is None:
        return
    bound = module.__dict__.get("forward")
    if bound is not None and getattr(bound, "__func__", None) is generated.__dict__["forward"]:
        # Left on the instance by trainers that redirect forward for a while.
        del module.__dict__["forward"]
    module.__class__ = base
