"""Differences as between two right ways to compute the same in float32, made on purpose in torch.

What moves the outputs of a network as much as a runtime does is no fault of the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Disturbance"]

_SIZE = 1e-6
_DECIDING = {"aten::topk": 0, "aten::sort": 0, "aten::argsort": 0, "aten::max": 0, "torchvision::nms": 1}
"""Ops that turn differences in the last bits into others of any size, and the argument that they order."""


class Disturbance(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Use it as a context manager: what ops order is disturbed, so that equal values come in any order.

    Args:
        seed: Seed of the random numbers.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = torch.Generator().manual_seed(seed)

    def disturbed(self, value: Tensor) -> Tensor:
        """Return floating-point values moved by about a millionth each; others as they are."""
        if not value.is_floating_point():
            return value
        noise = torch.randn(value.shape, generator=self._generator, dtype=torch.float32).to(value.dtype)
        return value * (1 + _SIZE * noise)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an op, on disturbed values if it puts them in an order."""
        place = _DECIDING.get(func.name().partition(".")[0])
        if place is not None and len(args) > place and isinstance(args[place], Tensor):
            args = [self.disturbed(arg) if index == place else arg for index, arg in enumerate(args)]
        return func(*args, **(kwargs or {}))
