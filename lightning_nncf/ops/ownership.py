"""Who else holds a gradient: a backward that is alone with it may write its result there.

A gradient the size of an activation or of a layer's weights costs more to allocate (a page fault for each 4 KiB) than
to compute. Autograd has no rule that a gradient belongs to the function that receives it, but it can be seen: nobody
else holds the tensor, its Python object or its memory. What the three counts are when that is so is found once, by a
backward whose gradient nobody else can know.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch
from torch import Tensor

from lightning_nncf.ops.functions import direct

__all__ = ["belongs_to_backward"]

_tensor_holders: Any = Tensor._use_count  # type: ignore[attr-defined]
_storage_address: Any = torch._C._storage_address  # type: ignore[attr-defined]
_storage_holders: Any = torch._C._storage_Use_Count


def belongs_to_backward(grad: Tensor) -> bool:
    """Return whether a gradient is held by nothing but the backward that received it.

    To be called from the ``backward`` of a `direct` function, with its argument, and from nowhere else; not
    where a second derivative may be asked for.

    Args:
        grad: The gradient that the backward was called with.
    """
    return (
        type(grad) is Tensor
        and grad.is_cpu
        # The memory is asked for without a Python object for it: that would hold it from then on.
        and (sys.getrefcount(grad), _tensor_holders(grad), _storage_holders(_storage_address(grad))) == _sole_owner()
    )


def _seen_by_backward(grad: Tensor) -> tuple[int, int, int]:
    """Count who holds the Python object, the tensor and the memory, in the place of `belongs_to_backward`."""
    return sys.getrefcount(grad), _tensor_holders(grad), _storage_holders(_storage_address(grad))


@functools.cache
def _sole_owner() -> tuple[int, int, int]:
    with torch.enable_grad():
        (_Probe.apply(torch.zeros(1, device="cpu", requires_grad=True)) * 2.0).backward()
    return _Probe.counts


@direct
class _Probe(torch.autograd.Function):
    """Counts the holders of a product, which multiplication makes for this backward alone."""

    counts = (0, 0, 0)

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor | None:
        (grad,) = grads
        _Probe.counts = _seen_by_backward(grad)
        return None
