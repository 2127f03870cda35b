"""What an optimizer remembers of a parameter, sliced with it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.optim import Optimizer

from lightning_nncf.errors import HookError

__all__ = ["slice_state"]


def slice_state(optimizer: Optimizer, parameter: Tensor, select: Callable[[Tensor], Tensor]) -> None:
    """Slice all state tensors of the shape of a parameter, before the parameter itself is sliced.

    Args:
        optimizer: The optimizer.
        parameter: One of its parameters, or another tensor, for which nothing happens.
        select: Slices a tensor of that shape.

    Raises:
        HookError: The optimizer keeps state of another shape, whose meaning is unknown.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    >>> weight.grad = torch.arange(3.0)
    >>> optimizer.step()
    >>> slice_state(optimizer, weight, lambda state: state[1:])
    >>> optimizer.state[weight]["momentum_buffer"]
    tensor([1., 2.])
    """
    if parameter not in optimizer.state:
        return
    state = optimizer.state[parameter]
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.numel() <= 1:
            continue
        if value.shape != parameter.shape:
            raise HookError(
                f"{type(optimizer).__name__} keeps `{key}` of shape {list(value.shape)} for a parameter of shape "
                f"{list(parameter.shape)}, which cannot be sliced when filters are removed during fit; leave out "
                "`shrink_at`, or use an optimizer whose state has the shape of its parameters"
            )
        state[key] = select(value)
