"""Batch norms and ReLUs, whose work the quantizer of their output does.

They are many, and do so little that hooks would cost more than they do: a generated class does in its forward what
hooks do for other modules, or leaves the work to the quantizer.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nncf.graph.kinds import BATCH_NORMS, RECTIFIERS, kind_of
from lightning_nncf.hooks.calls import close_call, open_call
from lightning_nncf.hooks.frames import HOOKED, HookedModule
from lightning_nncf.hooks.generated import is_generated, subclass
from lightning_nncf.hooks.slots import Slot, is_heard

__all__ = ["STAND_IN", "adopt_layer", "is_layer", "stand_in"]

STAND_IN = "lnncf_stand_in"
"""Attribute of a batch norm that holds its `_StandIn`."""


def is_layer(module: nn.Module) -> bool:
    """Return whether a module needs no hooks, but `adopt_layer`."""
    return kind_of(module) in (*RECTIFIERS, *BATCH_NORMS)


def adopt_layer(module: nn.Module) -> None:
    """Give a batch norm or a ReLU a subclass of its class that applies the slots of its `HookedModule`."""
    if not is_generated(module):
        module.__class__ = _layer_class(type(module))  # type: ignore[arg-type]


def stand_in(norm: nn.Module, hooked: HookedModule, slot: Slot) -> None:
    """Let a slot do the work of a batch norm before it.

    Args:
        norm: The batch norm.
        hooked: The module at whose output the slot sits: the batch norm itself, or the only reader of its output, a
            ReLU.
        slot: The slot.
    """
    norm.__dict__[STAND_IN] = _StandIn(hooked, slot)
    adopt_layer(norm)


class _StandIn:
    """Does the work of a batch norm, see `stand_in`."""

    def __init__(self, hooked: HookedModule, slot: Slot) -> None:
        self.hooked = hooked
        self.slot = slot
        self.given = 0

    def normalized(self, norm: nn.Module, x: Tensor) -> Tensor | None:
        """Return what a batch norm is to return: the value of the slot.

        Args:
            norm: The batch norm.
            x: What it gets.

        Returns:
            The value; ``None`` if the batch norm is to do its work itself.
        """
        hooked, module = self.hooked, self.hooked.module
        normalize = None if hooked.inputs else _only(self.slot, "normalized", norm, module)
        if normalize is None:
            return None
        if module is norm:
            return normalize(norm, x, None)  # type: ignore[no-any-return]
        given = hooked.given
        if self.given in given:
            given.clear()
            hooked.rectifies = False
            hooked.warn(
                f"the output of a batch norm went past {hooked.name} without having done so when the network was "
                "captured: once, it was quantized already"
            )
        if not hooked.rectifies:
            return None
        result: Tensor | None = normalize(norm, x, _top(module))
        if result is not None:
            self.given = id(result)
            given[self.given] = result
        return result


@functools.cache
def _layer_class(base: type) -> type:
    plain_forward = base.forward  # type: ignore[attr-defined]

    @functools.wraps(plain_forward)
    def forward(self: nn.Module, input: Tensor) -> Tensor:
        hooked: HookedModule | None = self.__dict__.get(HOOKED)
        replacement: _StandIn | None = self.__dict__.get(STAND_IN)
        eager = not torch.compiler.is_compiling()
        if eager and replacement is not None:
            result = replacement.normalized(self, input)
            if result is not None:
                return result
        if hooked is None:
            return plain_forward(self, input)  # type: ignore[no-any-return]
        if hooked.module is not self:
            hooked.refuse_copy()
        if not eager:
            return _run(plain_forward, hooked, input)
        if hooked.given and id(input) in hooked.given:
            hooked.pass_by()
            return hooked.given.pop(id(input))
        above = hooked.callers[-1] if hooked.callers else None
        if hooked.inputs or hooked.weights or (above is not None and above.mode is not None):
            return _run(plain_forward, hooked, input)
        path = hooked.locate(above) if hooked.tracked else hooked.path
        slots = hooked.outputs.get(path)
        return plain_forward(self, input) if slots is None else _changed(plain_forward, hooked, slots[0], input)

    return subclass(base, forward, _rebuild)


def _run(plain_forward: Any, hooked: HookedModule, input: Tensor) -> Tensor:
    """Run a call with a frame, as hooks do."""
    frame = open_call(hooked)
    try:
        inputs, outputs = hooked.inputs.get(frame.path), hooked.outputs.get(frame.path)
        if inputs:
            input = inputs[0](input)
        if outputs:
            return _changed(plain_forward, hooked, outputs[0], input)
        result: Tensor = plain_forward(hooked.module, input)
        return result
    finally:
        close_call(hooked).end()


def _changed(plain_forward: Any, hooked: HookedModule, slot: Slot, input: Tensor) -> Tensor:
    """Return what a slot makes of the output, where one operator gives it in one go if nobody listens."""
    module = hooked.module
    rectify = _only(slot, "rectified", module) if hooked.rectifies and not torch.compiler.is_compiling() else None
    if rectify is not None:
        result: Tensor | None = rectify(input, _top(module))
        if result is not None:
            return result
    return slot(plain_forward(module, input))


def _only(slot: Slot, method: str, *layers: nn.Module) -> Any:
    """Return a method of the module of a slot that does the work of layers before it, too.

    Args:
        slot: The slot.
        method: ``"rectified"``, which takes what a ReLU would get and where the ReLU ends, or ``"normalized"``, which
            takes a batch norm, what it would get, and where a ReLU between them ends, ``None`` without one. Both return
            what the module would make of the result; ``None`` if they cannot do the work now.
        layers: The layers.

    Returns:
        The method; ``None`` if there is none, several modules would have to act, or somebody listens to one of them.
    """
    chain = slot.chain
    return getattr(chain[0], method, None) if len(chain) == 1 and not is_heard(slot, chain[0], *layers) else None


def _top(activation: nn.Module) -> float:
    """Return where a ReLU or ReLU6 ends."""
    return math.inf if isinstance(activation, nn.ReLU) else float(activation.max_val)  # type: ignore[arg-type]


def _rebuild(base: type) -> Any:
    return object.__new__(_layer_class(base))
