"""Hooks on a network that see its calls in training."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["CallHooks"]

Before = Callable[[tuple[Any, ...], dict[str, Any]], None]
After = Callable[[Any], None]


class CallHooks:
    """Calls something before and something after each call of a network that may be gone back through.

    Copies of the network, and pickles, are watched by nobody.

    Args:
        before: Called with the arguments, as the caller gave them.
        after: Called with the result.
    """

    def __init__(self, before: Before, after: After) -> None:
        self._before = before
        self._after = after
        self._watched: list[bool] = []

    def attach(self, network: nn.Module) -> None:
        """Watch a network; hooks that it has already, its own or those it was copied with, are gone."""
        self.remove(network)
        network.register_forward_pre_hook(_Hook(self._enter), prepend=True, with_kwargs=True)
        network.register_forward_hook(_Hook(self._leave), always_call=True)

    def remove(self, network: nn.Module) -> None:
        """Watch the network no more."""
        self._watched = []
        for hooks in (network._forward_pre_hooks, network._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, _Hook)]:
                for known in (
                    hooks,
                    network._forward_pre_hooks_with_kwargs,
                    network._forward_hooks_always_called,
                ):
                    known.pop(key, None)

    def _enter(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Trainers redirect one call of the module to one of its steps, by a function in place of its `forward`.
        redirected = isinstance(network.__dict__.get("forward"), types.FunctionType)
        # A network that calls itself is one call.
        watched = network.training and torch.is_grad_enabled() and not redirected and not any(self._watched)
        self._watched.append(watched)
        if watched:
            self._before(args, kwargs)

    def _leave(self, _network: nn.Module, _args: Any, result: Any) -> None:
        watched = self._watched.pop() if self._watched else False
        if watched and result is not None:
            self._after(result)


class _Hook:
    """Calls an action; a copy calls nothing."""

    def __init__(self, action: Callable[..., Any] | None = None) -> None:
        self._action = action

    def __call__(self, *args: Any) -> None:
        if self._action is not None:
            self._action(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        """Return one that calls nothing."""
        return _Hook()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle one that calls nothing."""
        return _Hook, ()
