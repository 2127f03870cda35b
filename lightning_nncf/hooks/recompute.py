"""Activation checkpointing: what is recomputed in backward runs under the hooks of its first run.

A closure that is checkpointed inside a module's forward is recomputed after that forward has ended, when its hooks
are gone. While hooked modules run, the function given to ``torch.utils.checkpoint`` is therefore wrapped: it carries
the state of the hooks to its recomputation. Nothing stays patched when no hooked module runs.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils import checkpoint as checkpointing

from lightning_nncf.errors import HookError

__all__ = ["Watch", "check_recomputation"]

_FUNCTION = "CheckpointFunction"
_WATCHED = ("_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator", _FUNCTION)

Resume = Callable[[bool], AbstractContextManager[None]]
"""Takes whether compressed weights must be computed anew; opens the hooks as they were when this was made."""


class _Recomputed:
    """A checkpointed function that resumes the hooks when it is recomputed."""

    def __init__(self, function: Callable[..., Any], resume: Resume, *, reentrant: bool) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._resume = resume
        self._reentrant = reentrant
        # The reentrant form runs the function through here in the forward, too.
        self._in_forward = reentrant

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._in_forward:
            self._in_forward = False
            return self._function(*args, **kwargs)
        with self._resume(self._reentrant):
            return self._function(*args, **kwargs)


class Watch:
    """Wraps checkpointed functions while it is open.

    Args:
        snapshot: Returns what resumes the hooks of the current thread as they are now, or ``None`` without any.
    """

    _lock = threading.Lock()

    def __init__(self, snapshot: Callable[[], Resume | None]) -> None:
        self._snapshot = snapshot
        self._open = 0
        # What is wrapped and what wraps it, kept: a network opens and closes this for every block.
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    def open(self) -> None:
        """Begin to watch; may be nested and called from several threads."""
        with self._lock:
            self._open += 1
            if self._open > 1:
                return
            names = vars(checkpointing)
            for name in _WATCHED:
                original = names.get(name)
                if original is None:
                    continue
                known, wrapper = self._wrapped.get(name, (None, None))
                if known is not original:
                    wrapper = self._wrapper(name, original)
                    self._wrapped[name] = original, wrapper
                names[name] = wrapper

    def close(self) -> None:
        """Stop watching when every `open` has been closed."""
        with self._lock:
            self._open -= 1
            if self._open == 0:
                names = vars(checkpointing)
                for name, (original, _) in self._wrapped.items():
                    names[name] = original

    def _wrapper(self, name: str, original: Any) -> Any:
        if name == _FUNCTION:
            return _Applied(original, self._snapshot)
        return functools.partial(self._generator, original)

    def _generator(self, original: Callable[..., Any], function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        resume = self._snapshot()
        if resume is not None:
            function = _Recomputed(function, resume, reentrant=False)
        return original(function, *args, **kwargs)


class _Applied:
    """Stands for ``CheckpointFunction`` while it is watched."""

    def __init__(self, original: Any, snapshot: Callable[[], Resume | None]) -> None:
        self._original = original
        self._snapshot = snapshot

    def apply(self, function: Callable[..., Any], *args: Any) -> Any:
        resume = self._snapshot()
        if resume is not None:
            function = _Recomputed(function, resume, reentrant=True)
        return self._original.apply(function, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


@functools.cache
def check_recomputation() -> None:
    """Check once that this version of torch lets checkpointed functions be wrapped.

    Raises:
        HookError: It does not; gradients of checkpointed parts would be wrong without a sign.

    >>> check_recomputation()
    """

    class _Resumed(AbstractContextManager[None]):
        def __exit__(self, *_: object) -> None:
            resumed.append(True)

    resumed: list[bool] = []
    watch = Watch(lambda: lambda fresh: _Resumed())
    for reentrant in (False, True):
        resumed.clear()
        value = torch.ones(1, requires_grad=True)
        watch.open()
        try:
            with torch.enable_grad():
                result = checkpointing.checkpoint(torch.sin, value, use_reentrant=reentrant)
        finally:
            watch.close()
        torch.autograd.backward(result.sum())
        if len(resumed) != 1:
            raise HookError(
                f"torch {torch.__version__} does not let checkpointed functions be followed "
                f"(use_reentrant={reentrant}), so that gradients could be wrong without a sign; "
                "use a version of torch that lightning_nncf was tested with"
            )
