"""Quantizers that do the work of the ReLU and the batch norm before them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from lightning_nncf.graph.frames import SCOPE, Scope
from lightning_nncf.graph.slots import Slot

__all__ = ["NOTHING", "StandIn", "is_alone", "rectified"]

NOTHING = torch.empty(0)
"""What a layer gets whose work is done."""


def rectified(scope: Scope, path: str, x: Any) -> torch.Tensor | None:
    """Return the output of a ReLU and of the module there, where one operator gives it and nobody listens.

    Outside of a compiler, that is.
    """
    module = scope.module
    slots = scope.outputs.get(path)
    if not slots or not isinstance(x, torch.Tensor) or len(module._forward_hooks) > 1 or not is_alone(module):
        return None
    return slots[0].rectified(x, _top(module))


def _top(module: nn.Module) -> float:
    """Return where a ReLU or ReLU6 ends."""
    return math.inf if isinstance(module, nn.ReLU) else float(module.max_val)  # type: ignore[arg-type]


class StandIn:
    """Does the work of a batch norm, where a slot behind it does that too.

    Args:
        scope: The scope of the module at whose output the slot sits, the batch norm itself, or the only reader of its
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
        hooks = 1 if SCOPE in norm.__dict__ else 0
        if len(norm._forward_hooks) > hooks or len(norm._forward_pre_hooks) > hooks or not is_alone(norm):
            return None
        if itself:
            if not scope.thread:  # forward was called directly
                return None
            scope.result = result = self.slot.normalized(norm, x, None)
            return result
        if scope.inputs or len(module._forward_hooks) > 1 or not is_alone(module):
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


def is_alone(module: nn.Module) -> bool:
    """Return whether a module of ours gets its input as our hook returns it, and nobody waits for its gradients.

    Outside of a compiler, that is.
    """
    return len(module._forward_pre_hooks) <= 1 and not module._backward_hooks and not module._backward_pre_hooks
