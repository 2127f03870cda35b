"""The hooks of a hooked module, which run before and after its forward."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn

from lightning_nncf.capture.values import replace_tensors
from lightning_nncf.hooks.calls import close_alone, close_call, open_alone, open_call
from lightning_nncf.hooks.frames import HookedModule
from lightning_nncf.hooks.slots import Change
from lightning_nncf.ops.data_ranges import is_quantized_data, learn_through_weight
from lightning_nncf.ops.rebuilding import rebuild_in_backward

__all__ = ["Enter", "Leave"]


class Enter:
    """Forward pre-hook of a hooked module."""

    def __init__(self, hooked: HookedModule) -> None:
        self.hooked = hooked

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Begin the call and replace inputs."""
        hooked = self.hooked
        if module is not hooked.module:
            hooked.refuse_copy()
        eager = not torch.compiler.is_compiling()
        path = open_alone(hooked) if eager else None
        if path is None:
            path = open_call(hooked).path
        slots = hooked.inputs.get(path) if hooked.inputs else None
        if not slots:
            return None
        if not kwargs and len(args) == 1 and 0 in slots and isinstance(args[0], torch.Tensor):
            value = slots[0](args[0])
            if eager and hooked.convolves and _gets_it(module) and is_quantized_data(value):
                hooked.data = value
                value = value.detach()
            return (value,), kwargs
        replaced: tuple[tuple[Any, ...], dict[str, Any]] = replace_tensors((args, kwargs), Change(slots))
        return replaced


class Leave:
    """Forward hook of a hooked module, also called when its forward raised."""

    def __init__(self, hooked: HookedModule) -> None:
        self.hooked = hooked

    def __call__(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        """Replace outputs and end the call."""
        hooked, running = self.hooked, self.hooked.thread
        if running["id"] != threading.get_ident() if running else not hooked.frames:
            return None  # a call of another thread, or none
        plain, frame = result, None
        try:
            if hooked.data is not None and isinstance(result, torch.Tensor):
                result = self._learned(module, result, hooked.data)
        finally:
            hooked.data = None
            eager = bool(running)  # has begun outside of a compiler
            if hooked.frames:
                frame = close_call(hooked)
            else:
                close_alone(hooked)
        try:
            if result is None:
                return None
            if eager and hooked.weights:
                rebuild_in_backward(result, args[0] if args else None)
            slots = hooked.outputs.get(hooked.at if frame is None else frame.path) if hooked.outputs else None
            if slots:
                if not isinstance(result, torch.Tensor):
                    return replace_tensors(result, Change(slots))
                if 0 in slots:
                    return slots[0](result)
            return None if result is plain else result
        finally:
            if frame is not None:
                frame.end()

    def _learned(self, module: nn.Module, result: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        """Let the range of the input learn, where the layer got its values alone."""
        learned = learn_through_weight(result, data)
        if learned is None:  # the layer does more than to convolve: ask no more
            self.hooked.convolves = False
            learned = module.forward(data)
        return learned


def _gets_it(module: nn.Module) -> bool:
    """Return whether a module gets its input as our hook returns it, and nobody waits for its gradients."""
    return len(module._forward_pre_hooks) <= 1 and not module._backward_hooks and not module._backward_pre_hooks
