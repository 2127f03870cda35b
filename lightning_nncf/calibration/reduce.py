"""Agreement of several processes on statistics of data that each saw a part of."""

from __future__ import annotations

from typing import Literal, Protocol

import torch.distributed as dist
from torch import Tensor

__all__ = ["Reduce", "distributed_reduce", "process_group_reduce"]

_OPERATIONS = {"sum": dist.ReduceOp.SUM, "min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX}


class Reduce(Protocol):
    """Combine a CPU tensor of every process, element by element; all of them get the same result."""

    def __call__(self, values: Tensor, operation: Literal["sum", "min", "max"]) -> Tensor:
        """Return the combined tensor on the CPU; every process must call in the same order with the same shape."""


def process_group_reduce(values: Tensor, operation: Literal["sum", "min", "max"]) -> Tensor:
    """Combine a CPU tensor across the default process group, which may be one of GPUs.

    Args:
        values: Tensor of this process; left as it is.
        operation: How to combine.

    Returns:
        The combined tensor, the same in every process.
    """
    on_gpu = "nccl" in dist.get_backend()
    combined = values.to("cuda") if on_gpu else values.clone()
    dist.all_reduce(combined, op=_OPERATIONS[operation])
    return combined.to(values.device)


def distributed_reduce() -> Reduce | None:
    """Return `process_group_reduce` where several processes train together, else nothing.

    >>> distributed_reduce() is None
    True
    """
    together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return process_group_reduce if together else None
