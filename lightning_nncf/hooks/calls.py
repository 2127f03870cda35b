"""Calls of hooked modules: weights are hidden while they last, and checkpointed parts open them again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

from lightning_nncf.hooks.frames import Frame, Scope
from lightning_nncf.hooks.modes import LocalMode
from lightning_nncf.hooks.recompute import Resume, Watch
from lightning_nncf.hooks.shadows import ABSENT, FLAT_WEIGHTS, flat_weights, keep_write, plain_value, version_of

__all__ = ["close_alone", "close_call", "open_alone", "open_call"]


def open_alone(scope: Scope) -> str | None:
    """Begin a call without a frame, if it needs none now; not to be called under a compiler.

    Args:
        scope: The scope of the module called.

    Returns:
        The path of the call; ``None`` if it has not begun: `open_call` begins it.
    """
    if not (scope.settle() if scope.solitary is None else scope.solitary) or scope.frames:
        return None
    above = scope.callers[-1] if scope.callers else None
    if above is not None and above.mode is not None:
        return None
    weights, hidden = scope.weights, scope.module.__dict__
    # A call around this one may have hidden the weight already; an interruption may have left it hidden.
    if weights and weights[0][1] in hidden and not scope.thread:
        return None
    thread = threading.get_ident()  # as `Scope.claim` does, without a call in every layer
    if scope.thread.setdefault("id", thread) != thread:
        scope.refuse()
    scope.at = path = scope.locate(above) if scope.tracked else scope.path
    if weights:
        _, name, slot = weights[0]
        hidden[name] = value = slot(scope.module._parameters[name])  # type: ignore[arg-type]
        scope.version = version_of(value)
    return path


def close_alone(scope: Scope) -> None:
    """End a call that has no frame."""
    if scope.weights:
        name = scope.weights[0][1]
        value = scope.module.__dict__.pop(name, None)
        if value is not None and version_of(value) != scope.version:
            keep_write(scope.module, name, value, scope.name)
    scope.thread.clear()


def open_call(scope: Scope) -> Frame:
    """Begin a call: find its path, let its callees know, hide the weights."""
    compiling = torch.compiler.is_compiling()
    if not compiling:
        scope.claim()
    frame = Frame(scope, scope.path)
    scope.frames.append(frame)
    if not scope.leaf:
        if not compiling:
            _ACTIVE.append(frame)
        for callee in scope.callees:
            callee.callers.append(frame)
    if scope.callers:
        frame.begin_in(scope.callers[-1])
    if scope.tracked:
        frame.path = scope.locate(frame.above)
    for holder, name, slot in scope.weights:
        earlier = holder.__dict__.get(name, ABSENT)
        value = slot(plain_value(holder, name))
        frame.shadows.append((holder, name, earlier, slot))
        holder.__dict__[name] = value
        if not compiling:
            frame.versions.append((holder, name, value, version_of(value)))
    for holder in scope.recurrent:
        frame.shadows.append((holder, FLAT_WEIGHTS, holder.__dict__[FLAT_WEIGHTS], None))
        holder.__dict__[FLAT_WEIGHTS] = flat_weights(holder)
    return frame


def close_call(scope: Scope) -> Frame:
    """End the latest call, except for `Frame.end`."""
    frame = scope.frames.pop()
    for holder, name, earlier, _ in reversed(frame.shadows):
        if earlier is ABSENT:
            holder.__dict__.pop(name, None)
        else:
            holder.__dict__[name] = earlier
    compiling = torch.compiler.is_compiling()
    if not compiling:
        for holder, name, value, version in frame.versions:
            if version_of(value) != version:
                keep_write(holder, name, value, scope.name)
    if not scope.leaf:
        for callee in scope.callees:
            if callee.callers and callee.callers[-1] is frame:
                callee.callers.pop()
        if not compiling:
            _ACTIVE.remove(frame)
    if not compiling and not scope.frames:
        scope.thread.clear()
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
    copied = Frame(frame.scope, frame.path)
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
                scope = saved.scope
                scope.claim()
                frame = _copy(saved)
                frame.shadows = []
                scope.frames.append(frame)
                _ACTIVE.append(frame)
                stack.callback(close_call, scope)
                for callee in scope.callees:
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
