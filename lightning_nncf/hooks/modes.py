"""The function mode of a call, through which its own functions get and give values of slots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from lightning_nncf.capture.attention import ATTENTION, attend, is_self_attention
from lightning_nncf.capture.values import has_values, replace_tensors
from lightning_nncf.graph.addresses import function_name
from lightning_nncf.hooks.frames import Frame, is_latest
from lightning_nncf.hooks.slots import Change, SharedChange

__all__ = ["LocalMode"]


class LocalMode(TorchFunctionMode):
    """Replaces inputs and outputs of functions called in one module's forward, not in the modules it calls.

    Args:
        frame: The call.
    """

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = frame

    def __exit__(self, *error: Any) -> None:
        """Leave the stack, unless an interruption inside a call has kept the mode from coming back to it."""
        if torch.compiler.is_compiling() or is_latest(self):
            super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function between its slots."""
        kwargs = kwargs or {}
        frame = self.frame
        if frame.depth:
            return func(*args, **kwargs)
        hooked = frame.hooked
        # Where attention was one op when the network was captured, it stays one.
        if ATTENTION not in hooked.counts and is_self_attention(func, args, kwargs):
            with self:
                return attend(args, kwargs)
        name = function_name(func)
        count = hooked.counts.get(name)
        if count is None:
            return func(*args, **kwargs)
        if not has_values(args, kwargs):
            return func(*args, **kwargs)
        index = frame.functions.get(name, 0)
        frame.functions[name] = index + 1
        if index >= count:
            hooked.warn(
                f"call {index} of {name!r} in {hooked.name} was not seen when the network was "
                "captured and is not compressed"
            )
            return func(*args, **kwargs)
        slots = hooked.functions.get(frame.path)
        if slots is None:
            return func(*args, **kwargs)
        inputs = slots.get((name, index, "input"))
        outputs = slots.get((name, index, "output"))
        if inputs is not None:
            args, kwargs = replace_tensors((args, dict(kwargs)), SharedChange(inputs))
        result = func(*args, **kwargs)
        return result if outputs is None else replace_tensors(result, Change(outputs))
