"""Calls of hooked modules: weights are hidden while they last, and checkpointed parts open them again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

from lightning_nncf.hooks.frames import Frame, HookedModule
from lightning_nncf.hooks.modes import LocalMode
from lightning_nncf.hooks.recompute import Resume, Watch
from lightning_nncf.hooks.shadows import ABSENT, FLAT_WEIGHTS, flat_weights, plain_value

__all__ = ["close_alone", "close_call", "open_alone", "open_call"]


def open_alone(hooked: HookedModule) -> str | None:
    """Begin a call without a frame, if it needs none now; not to be called under a compiler.

    Args:
        hooked: The module called.

    Returns:
        The path of the call; ``None`` if it has not begun: `open_call` begins it.
    """
    if not (hooked.settle() if hooked.solitary is None else hooked.solitary) or hooked.frames:
        return None
    above = hooked.callers[-1] if hooked.callers else None
    if above is not None and above.mode is not None:
        return None
    weights, hidden = hooked.weights, hooked.module.__dict__
    # A call around this one may have hidden the weight already; an interruption may have left it hidden.
    if weights and weights[0][1] in hidden and not hooked.thread:
        return None
    thread = threading.get_ident()  # as `HookedModule.claim` does, without a call in every layer
    if hooked.thread.setdefault("id", thread) != thread:
        hooked.refuse()
    hooked.at = path = hooked.locate(above) if hooked.tracked else hooked.path
    if weights:
        _, name, slot = weights[0]
        hidden[name] = slot(hooked.module._parameters[name])  # type: ignore[arg-type]
    return path


def close_alone(hooked: HookedModule) -> None:
    """End a call that has no frame."""
    if hooked.weights:
        hooked.module.__dict__.pop(hooked.weights[0][1], None)
    hooked.thread.clear()


def open_call(hooked: HookedModule) -> Frame:
    """Begin a call: find its path, let its callees know, hide the weights."""
    compiling = torch.compiler.is_compiling()
    if not compiling:
        hooked.claim()
    frame = Frame(hooked, hooked.path)
    hooked.frames.append(frame)
    if not hooked.leaf:
        if not compiling:
            _ACTIVE.append(frame)
        for callee in hooked.callees:
            callee.callers.append(frame)
    if hooked.callers:
        frame.begin_in(hooked.callers[-1])
    if hooked.tracked:
        frame.path = hooked.locate(frame.above)
    for holder, name, slot in hooked.weights:
        earlier = holder.__dict__.get(name, ABSENT)
        value = slot(plain_value(holder, name))
        frame.shadows.append((holder, name, earlier, slot))
        holder.__dict__[name] = value
    for holder in hooked.recurrent:
        frame.shadows.append((holder, FLAT_WEIGHTS, holder.__dict__[FLAT_WEIGHTS], None))
        holder.__dict__[FLAT_WEIGHTS] = flat_weights(holder)
    return frame


def close_call(hooked: HookedModule) -> Frame:
    """End the latest call, except for `Frame.end`."""
    frame = hooked.frames.pop()
    for holder, name, earlier, _ in reversed(frame.shadows):
        if earlier is ABSENT:
            holder.__dict__.pop(name, None)
        else:
            holder.__dict__[name] = earlier
    compiling = torch.compiler.is_compiling()
    if not hooked.leaf:
        for callee in hooked.callees:
            if callee.callers and callee.callers[-1] is frame:
                callee.callers.pop()
        if not compiling:
            _ACTIVE.remove(frame)
    if not compiling and not hooked.frames:
        hooked.thread.clear()
    return frame


class _Active(threading.local):
    """The running calls of hooked modules in this thread, outermost first."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def append(self, frame: Frame) -> None:
        if not self.frames:
            _WATCH.open()
        self.frames.append(frame)

    def remove(self, frame: Frame) -> None:
        if frame in self.frames:
            self.frames.remove(frame)
            if not self.frames:
                _WATCH.close()


_ACTIVE = _Active()


def _snapshot() -> Resume | None:
    frames = [_copy(frame) for frame in _ACTIVE.frames]
    if not frames:
        return None
    values = [[holder.__dict__.get(name, ABSENT) for holder, name, _, _ in frame.shadows] for frame in frames]
    return _Resumption(frames, values)


def _copy(frame: Frame) -> Frame:
    copied = Frame(frame.hooked, frame.path)
    copied.depth = frame.depth
    copied.functions = dict(frame.functions)
    copied.calls = dict(frame.calls)
    copied.shadows = list(frame.shadows)
    copied.mode = frame.mode
    return copied


class _Resumption:
    """Opens calls again as they were when a checkpointed part of them first ran."""

    def __init__(self, frames: list[Frame], values: list[list[Any]]) -> None:
        self._frames = frames
        self._values = values

    @contextlib.contextmanager
    def __call__(self, fresh: bool) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for saved, values in zip(self._frames, self._values, strict=True):
                hooked = saved.hooked
                hooked.claim()
                frame = _copy(saved)
                frame.shadows = []
                hooked.frames.append(frame)
                _ACTIVE.append(frame)
                stack.callback(close_call, hooked)
                for callee in hooked.callees:
                    callee.callers.append(frame)
                for (holder, name, _, slot), value in zip(saved.shadows, values, strict=True):
                    frame.shadows.append((holder, name, holder.__dict__.get(name, ABSENT), slot))
                    # The graph of the first run cannot be entered twice by a backward inside a backward.
                    if not fresh:
                        holder.__dict__[name] = value
                    elif slot is not None:
                        holder.__dict__[name] = slot(plain_value(holder, name))
                    else:
                        holder.__dict__[name] = flat_weights(holder)
                if saved.mode is not None:
                    frame.mode = stack.enter_context(LocalMode(frame))
            yield


_WATCH = Watch(_snapshot)
