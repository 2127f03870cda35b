"""What is known of a module with hooks, its `HookedModule`, and of each of its running calls, a `Frame`."""

from __future__ import annotations

import threading
import warnings
from typing import Any, NoReturn

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lightning_nncf.errors import HookError
from lightning_nncf.graph.addresses import child_call_path
from lightning_nncf.hooks.slots import Slot

__all__ = ["HOOKED", "Frame", "HookedModule", "is_latest"]

HOOKED = "lnncf_hooked"
"""Attribute of a module with hooks that holds its `HookedModule`."""

_push_mode: Any = torch._C._push_on_torch_function_stack
_pop_mode: Any = torch._C._pop_torch_function_stack
_count_modes: Any = torch._C._len_torch_function_stack
_mode_at: Any = torch._C._get_function_stack_at

_CONVOLUTIONS = (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)


class Frame:
    """One call of a hooked module.

    Args:
        hooked: The module called.
        path: Call path.
    """

    __slots__ = (
        "above",
        "calls",
        "depth",
        "functions",
        "hooked",
        "mode",
        "path",
        "shadows",
        "suspended",
    )

    def __init__(self, hooked: HookedModule, path: str) -> None:
        self.hooked = hooked
        self.path = path
        self.above: Frame | None = None
        self.depth = 0  # calls of other modules that run inside
        self.functions: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.shadows: list[tuple[nn.Module, str, Any, Slot | None]] = []
        self.mode: TorchFunctionMode | None = None
        self.suspended = False

    def begin_in(self, above: Frame) -> None:
        """Begin inside another call, whose functions are not hooked meanwhile.

        Its mode leaves the stack, where every function of torch would go through it; under another mode it stays and
        looks at `depth`.
        """
        self.above = above
        above.depth += 1
        if above.mode is not None and not torch.compiler.is_compiling() and is_latest(above.mode):
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


def is_latest(mode: TorchFunctionMode) -> bool:
    """Return whether functions of torch go through a mode first."""
    count = _count_modes()
    return count > 0 and _mode_at(count - 1) is mode


class HookedModule:
    """A module with hooks, and what is replaced in its calls.

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
        self.callees: list[HookedModule] = []
        self.paths: list[str] = []
        self.located: dict[tuple[str, int], str] = {}
        self.tracked = False
        self.rectifies = False
        # Whether calls need no frame; unknown until the first after a change.
        self.solitary: bool | None = None
        # Values that batch norms made for the outputs of coming calls, by the ids of these values.
        self.given: dict[int, torch.Tensor] = {}
        # Layers of PyTorch that call no other module, nor checkpoint anything.
        self.leaf = type(module).__module__.startswith("torch.nn.modules.") and all(
            isinstance(child, Slot) for child in module._modules.values()
        )
        self.convolves = type(module).forward in _CONVOLUTIONS
        self.free = False
        self.warned: list[str] = []
        self.frames: list[Frame] = []
        self.callers: list[Frame] = []
        self.thread: dict[str, int] = {}
        # Of the running call of a layer: its path, if it has no frame; a quantized input whose range learns through the
        # weights.
        self.at = path
        self.data: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to running calls, so that a copy starts idle."""
        idle: dict[str, Any] = {"frames": [], "callers": [], "thread": {}, "given": {}, "data": None}
        return {**self.__dict__, **idle}

    @property
    def name(self) -> str:
        """How messages call the module."""
        return repr(self.path) if self.path else "the network"

    def settle(self) -> bool:
        """Find out whether calls need no frame: nothing runs inside, and at most one weight is hidden.

        So it is with nearly all layers, where a frame would cost more than the rest of a hook.
        """
        self.solitary = (
            self.leaf
            and not (self.recurrent or self.counts)
            and len(self.weights) <= 1
            and all(holder is self.module and name in holder._parameters for holder, name, _ in self.weights)
        )
        return self.solitary

    def claim(self) -> None:
        """Refuse a call beside another one in another thread."""
        thread = threading.get_ident()
        if self.thread.setdefault("id", thread) != thread:
            self.refuse()

    def refuse(self) -> NoReturn:
        """Refuse a call beside another one in another thread, which has been found."""
        raise HookError(
            f"module {self.name} runs in two threads at once; its compressed "
            "weights belong to one call at a time: use one copy of the network per thread"
        )

    def refuse_copy(self) -> NoReturn:
        """Refuse a call of another module than the one that was hooked."""
        raise HookError(
            f"module {self.name} runs as a replica or shallow copy, which cannot carry compression; use "
            "DistributedDataParallel instead of nn.DataParallel, and copy.deepcopy to copy"
        )

    def pass_by(self) -> None:
        """Count a call whose work was done before it."""
        if self.tracked and self.callers:
            calls = self.callers[-1].calls
            calls[self.path] = calls.get(self.path, 0) + 1

    def locate(self, above: Frame | None) -> str:
        """Return the path of a call of a module that is called from several places.

        Args:
            above: The call around it.
        """
        if above is None:
            if self.free:
                return self.path
            raise HookError(
                f"module {self.path!r} has a compression module for each of its calls ({', '.join(self.paths)}) and "
                f"was called outside {self._callers_known()}, where they cannot be told apart"
            )
        index = above.calls.get(self.path, 0)
        above.calls[self.path] = index + 1
        path = self.located.get((above.path, index))
        if path is not None:
            return path
        path = child_call_path(above.path, above.hooked.path, self.path, index)
        if not self.paths or path in self.paths:
            self.located[above.path, index] = path
            return path
        siblings = [
            known
            for known in (child_call_path(above.path, above.hooked.path, self.path, other) for other in range(index))
            if known in self.paths
        ]
        nearest = siblings[-1] if siblings else self.paths[-1]
        self.warn(f"call {path!r} was not seen when the network was captured; the compression of {nearest!r} is used")
        return nearest

    def _callers_known(self) -> str:
        callers = sorted({path.rpartition(".")[0].rpartition(">")[0] or "the network" for path in self.paths})
        return " and ".join(callers)

    def warn(self, message: str) -> None:
        """Warn about this module once."""
        if not self.warned:
            self.warned.append(message)
            warnings.warn(message, stacklevel=2)
