"""What runs in a hooked network: one `Scope` per hooked module, opened by its hooks as a `Frame` per call."""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lightning_nncf.errors import HookError
from lightning_nncf.graph.addresses import child_call_path, function_name
from lightning_nncf.graph.recompute import Resume, Watch
from lightning_nncf.graph.shadows import ABSENT, FLAT_WEIGHTS, flat_weights, plain_value
from lightning_nncf.graph.slots import Change, SharedChange, Slot
from lightning_nncf.graph.values import replace_tensors, tensors_in
from lightning_nncf.ops.data_ranges import is_quantized_data, learn_through_weight
from lightning_nncf.ops.rebuilding import rebuild_in_backward

__all__ = ["Enter", "Frame", "Leave", "LocalMode", "Scope", "StandIn"]

_push_mode: Any = torch._C._push_on_torch_function_stack
_pop_mode: Any = torch._C._pop_torch_function_stack
_count_modes: Any = torch._C._len_torch_function_stack
_mode_at: Any = torch._C._get_function_stack_at


_CONVOLUTIONS = (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)


class Frame:
    """One call of a hooked module.

    Args:
        scope: The hooked module's scope.
        path: Call path.
    """

    __slots__ = (
        "above",
        "calls",
        "data",
        "depth",
        "functions",
        "mode",
        "path",
        "result",
        "scope",
        "shadows",
        "suspended",
    )

    def __init__(self, scope: Scope, path: str) -> None:
        self.scope = scope
        self.path = path
        self.above: Frame | None = None
        self.depth = 0  # calls of other modules that run inside
        self.functions: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.shadows: list[tuple[nn.Module, str, Any, Slot | None]] = []
        self.mode: LocalMode | None = None
        self.suspended = False
        self.data: torch.Tensor | None = None  # a quantized input whose range learns through the weights
        self.result: torch.Tensor | None = None  # of the whole call, known before it

    def begin_in(self, above: Frame) -> None:
        """Begin inside another call, whose functions are not hooked meanwhile.

        Its mode leaves the stack, where every function of torch would go through it; under another mode it stays and
        looks at `depth`.
        """
        self.above = above
        above.depth += 1
        if above.mode is not None and not torch.compiler.is_compiling() and _is_latest(above.mode):
            _pop_mode()
            self.suspended = True

    def end(self) -> None:
        """End: the call around it goes on."""
        above = self.above
        if above is None:
            return
        above.depth -= 1
        if self.suspended:
            self.suspended = False
            _push_mode(above.mode)


def _is_latest(mode: TorchFunctionMode) -> bool:
    count = _count_modes()
    return count > 0 and _mode_at(count - 1) is mode


class Scope:
    """The hooks of one module.

    Weights: each is replaced by its compressed value in the ``__dict__`` of its holder, where it hides the parameter,
    until the call ends; so are plain attributes, and the list from which a recurrent layer reads its weights.
    Inputs and outputs of calls: replaced by the hooks. Functions: replaced by a `LocalMode` that the generated class of
    the module enters in its forward.

    Args:
        module: The module.
        path: Its path, for messages and call paths.
    """

    def __init__(self, module: nn.Module, path: str) -> None:
        self.module = module
        self.path = path
        self.weights: list[tuple[nn.Module, str, Slot]] = []
        self.recurrent: list[nn.RNNBase] = []
        self.inputs: dict[str, dict[int, Slot]] = {}
        self.outputs: dict[str, dict[int, Slot]] = {}
        self.functions: dict[str, dict[tuple[str, int, str], dict[int, Slot]]] = {}
        self.counts: dict[str, int] = {}
        self.callees: list[Scope] = []
        self.paths: list[str] = []
        self.tracked = False
        self.rectifies = False
        # Values that batch norms made for the outputs of coming calls, by the ids of these values.
        self.given: dict[int, torch.Tensor] = {}
        # Layers of PyTorch that call no other module, nor checkpoint anything.
        self.leaf = type(module).__module__.startswith("torch.nn.modules.") and not module._modules
        self.convolves = type(module).forward in _CONVOLUTIONS
        self.free = False
        self.warned: list[str] = []
        self.frames: list[Frame] = []
        self.callers: list[Frame] = []
        self.thread: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to running calls, so that a copy starts idle."""
        return {**self.__dict__, "frames": [], "callers": [], "thread": {}, "given": {}}

    @property
    def name(self) -> str:
        """How messages call the module."""
        return repr(self.path) if self.path else "the network"

    def open(self) -> Frame:
        """Begin a call: find its path, let its callees know, hide the weights."""
        compiling = torch.compiler.is_compiling()
        if not compiling:
            self._claim()
        frame = Frame(self, self.path)
        self.frames.append(frame)
        if not self.leaf:
            if not compiling:
                _ACTIVE.append(frame)
            for callee in self.callees:
                callee.callers.append(frame)
        if self.callers:
            frame.begin_in(self.callers[-1])
        if self.tracked:
            frame.path = self._locate(frame)
        for holder, name, slot in self.weights:
            earlier = holder.__dict__.get(name, ABSENT)
            value = slot(plain_value(holder, name))
            frame.shadows.append((holder, name, earlier, slot))
            holder.__dict__[name] = value
        for holder in self.recurrent:
            frame.shadows.append((holder, FLAT_WEIGHTS, holder.__dict__[FLAT_WEIGHTS], None))
            holder.__dict__[FLAT_WEIGHTS] = flat_weights(holder)
        return frame

    def close(self) -> Frame:
        """End the latest call, except for `Frame.end`."""
        frame = self.frames.pop()
        for holder, name, earlier, _ in reversed(frame.shadows):
            if earlier is ABSENT:
                holder.__dict__.pop(name, None)
            else:
                holder.__dict__[name] = earlier
        compiling = torch.compiler.is_compiling()
        if not self.leaf:
            for callee in self.callees:
                if callee.callers and callee.callers[-1] is frame:
                    callee.callers.pop()
            if not compiling:
                _ACTIVE.remove(frame)
        if not compiling and not self.frames:
            self.thread.clear()
        return frame

    def _claim(self) -> None:
        thread = threading.get_ident()
        if self.thread.setdefault("id", thread) != thread:
            raise HookError(
                f"module {self.name} runs in two threads at once; its compressed "
                "weights belong to one call at a time: use one copy of the network per thread"
            )

    def _locate(self, frame: Frame) -> str:
        above = frame.above
        if above is None:
            if self.free:
                return self.path
            raise HookError(
                f"module {self.path!r} has a compression module for each of its calls ({', '.join(self.paths)}) and "
                f"was called outside {self._callers_known()}, where they cannot be told apart"
            )
        index = above.calls.get(self.path, 0)
        above.calls[self.path] = index + 1
        path = child_call_path(above.path, above.scope.path, self.path, index)
        if not self.paths or path in self.paths:
            return path
        siblings = [
            known
            for known in (child_call_path(above.path, above.scope.path, self.path, other) for other in range(index))
            if known in self.paths
        ]
        nearest = siblings[-1] if siblings else self.paths[-1]
        self.warn(f"call {path!r} was not seen when the network was captured; the compression of {nearest!r} is used")
        return nearest

    def _callers_known(self) -> str:
        callers = sorted({path.rpartition(".")[0].rpartition(">")[0] or "the network" for path in self.paths})
        return " and ".join(callers)

    def warn(self, message: str) -> None:
        """Warn about this scope once."""
        if not self.warned:
            self.warned.append(message)
            warnings.warn(message, stacklevel=2)


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
                scope._claim()
                frame = _copy(saved)
                frame.shadows = []
                scope.frames.append(frame)
                _ACTIVE.append(frame)
                stack.callback(scope.close)
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


_NOTHING = torch.empty(0)
"""What a layer gets whose work is done."""


class Enter:
    """Forward pre-hook of a hooked module."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Open a frame and replace inputs."""
        scope = self.scope
        if module is not scope.module:
            raise HookError(
                f"module {scope.name} runs as a replica or shallow copy, which cannot carry "
                "compression; use DistributedDataParallel instead of nn.DataParallel, and copy.deepcopy to copy"
            )
        frame = scope.open()
        if scope.rectifies and len(args) == 1 and not scope.inputs:
            given = scope.given.pop(id(args[0]), None) if scope.given else None
            frame.result = self._rectified(module, args[0]) if given is None else given
            if frame.result is not None:
                return (_NOTHING,), kwargs
        slots = scope.inputs.get(frame.path) if scope.inputs else None
        if not slots:
            return None
        if not kwargs and len(args) == 1 and 0 in slots and isinstance(args[0], torch.Tensor):
            value = slots[0](args[0])
            if scope.convolves and _is_alone(module) and is_quantized_data(value):
                frame.data = value
                value = value.detach()
            return (value,), kwargs
        replaced: tuple[tuple[Any, ...], dict[str, Any]] = replace_tensors((args, kwargs), Change(slots))
        return replaced

    def _rectified(self, module: nn.Module, x: Any) -> torch.Tensor | None:
        """Return the output of a ReLU and of the module there, where one operator gives it and nobody listens."""
        scope = self.scope
        slots = scope.outputs.get(scope.frames[-1].path)
        if not slots or not isinstance(x, torch.Tensor) or len(module._forward_hooks) > 1 or not _is_alone(module):
            return None
        return slots[0].rectified(x, _top(module))


def _top(module: nn.Module) -> float:
    """Return where a ReLU or ReLU6 ends."""
    return math.inf if isinstance(module, nn.ReLU) else float(module.max_val)  # type: ignore[arg-type]


class StandIn:
    """Does the work of a batch norm, where a slot behind it does that too.

    Args:
        scope: The scope of the module at whose output the slot sits: the batch norm itself, or the only reader of its
            output, a ReLU.
        slot: The slot.
    """

    def __init__(self, scope: Scope, slot: Slot) -> None:
        self.scope = scope
        self.slot = slot
        self.given = 0

    def normalized(self, norm: nn.Module, x: torch.Tensor) -> torch.Tensor | None:
        """Return what a batch norm is to return: the value of the slot.

        Args:
            norm: The batch norm.
            x: What it gets.

        Returns:
            The value; ``None`` if the batch norm is to do its work itself.
        """
        scope, module = self.scope, self.scope.module
        itself = module is norm
        hooks = 1 if "lnncf_scope" in norm.__dict__ else 0
        if len(norm._forward_hooks) > hooks or len(norm._forward_pre_hooks) > hooks or not _is_alone(norm):
            return None
        if itself:
            if not scope.frames:  # forward was called directly
                return None
            scope.frames[-1].result = result = self.slot.normalized(norm, x, None)
            return result
        if scope.inputs or len(module._forward_hooks) > 1 or not _is_alone(module):
            return None
        if self.given in scope.given:
            scope.given.clear()
            scope.rectifies = False
            scope.warn(
                f"the output of a batch norm went past {scope.name} without having done so when the network was "
                "captured: once, it was quantized already"
            )
        if not scope.rectifies:
            return None
        result = self.slot.normalized(norm, x, _top(module))
        if result is not None:
            self.given = id(result)
            scope.given[self.given] = result
        return result


def _is_alone(module: nn.Module) -> bool:
    """Return whether a module of ours gets its input as our hook returns it, and nobody waits for its gradients."""
    if torch.compiler.is_compiling() or len(module._forward_pre_hooks) > 1:
        return False
    return not module._backward_hooks and not module._backward_pre_hooks


class Leave:
    """Forward hook of a hooked module, also called when its forward raised."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def __call__(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        """Replace outputs and close the frame."""
        scope = self.scope
        if not scope.frames:
            return None
        if not torch.compiler.is_compiling() and scope.thread.get("id") != threading.get_ident():
            return None
        plain = result
        try:
            if scope.frames[-1].data is not None and isinstance(result, torch.Tensor):
                result = self._learned(module, result, scope.frames[-1].data)
        finally:
            frame = scope.close()
        if frame.result is not None and result is not None:
            frame.end()
            return frame.result
        if frame.shadows:
            rebuild_in_backward(result)
        try:
            slots = scope.outputs.get(frame.path) if scope.outputs else None
            if slots and result is not None:
                if not isinstance(result, torch.Tensor):
                    return replace_tensors(result, Change(slots))
                if 0 in slots:
                    return slots[0](result)
            return None if result is plain else result
        finally:
            frame.end()

    def _learned(self, module: nn.Module, result: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        """Let the range of the input learn, where the layer got its values alone."""
        learned = learn_through_weight(result, data)
        if learned is None:  # the layer does more than to convolve: ask no more
            self.scope.convolves = False
            learned = module.forward(data)
        return learned


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
        if torch.compiler.is_compiling() or _is_latest(self):
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
        scope = frame.scope
        name = function_name(func)
        count = scope.counts.get(name)
        if count is None:
            return func(*args, **kwargs)
        if torch.jit.is_tracing() and _on_sizes(args, kwargs):  # type: ignore[attr-defined, no-untyped-call]
            result = func(*args, **kwargs)
            if isinstance(result, torch.Tensor) and result.ndim == 0:
                # torch.jit makes tensors of sizes: this call is none when the network runs, and has no number.
                return result
            frame.functions[name] = frame.functions.get(name, 0) + 1
            return result
        index = frame.functions.get(name, 0)
        frame.functions[name] = index + 1
        if index >= count:
            scope.warn(
                f"call {index} of {name!r} in {scope.name} was not seen when the network was "
                "captured and is not compressed"
            )
            return func(*args, **kwargs)
        slots = scope.functions.get(frame.path)
        if slots is None:
            return func(*args, **kwargs)
        inputs = slots.get((name, index, "input"))
        outputs = slots.get((name, index, "output"))
        if inputs is not None:
            args, kwargs = replace_tensors((args, dict(kwargs)), SharedChange(inputs))
        result = func(*args, **kwargs)
        return result if outputs is None else replace_tensors(result, Change(outputs))


def _on_sizes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether all tensors of a call are single integers, as the sizes that ``torch.jit.trace`` follows."""
    tensors = list(tensors_in(args, kwargs))
    return bool(tensors) and all(tensor.ndim == 0 and not tensor.is_floating_point() for tensor in tensors)
