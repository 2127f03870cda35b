"""Where the tensors of a running network came from."""

from __future__ import annotations

import dataclasses
import weakref

import torch

from lightning_nncf.capture.calls import RunningCall

__all__ = ["Origin", "Origins"]


@dataclasses.dataclass
class Origin:
    """Where a tensor came from.

    Args:
        tensor: The tensor; found by its id, which another tensor may have by now.
        address: The op that made it.
        output: Which of the op's results it is.
        call: The module's call in which the op ran, if it ran in one.
        read: Whether an op took it since.
    """

    tensor: weakref.ref[torch.Tensor]
    address: str
    output: int
    call: RunningCall | None
    read: bool = False


class Origins:
    """The origins of all tensors of one run."""

    def __init__(self) -> None:
        self._known: dict[int, Origin] = {}
        self._overwritten: dict[int, tuple[weakref.ref[torch.Tensor], str]] = {}

    def clear(self) -> None:
        """Forget all tensors."""
        self._known.clear()
        self._overwritten.clear()

    def of(self, tensor: torch.Tensor) -> Origin | None:
        """Return the origin of a tensor, nothing for one that no recorded op made.

        >>> origins, made = Origins(), torch.zeros(1)
        >>> _ = origins.note(made, "0/conv2d:0", 0, None)
        >>> origins.of(made).address, origins.of(torch.zeros(1))
        ('0/conv2d:0', None)
        """
        origin = self._known.get(id(tensor))
        return origin if origin is not None and origin.tensor() is tensor else None

    def note(self, tensor: torch.Tensor, address: str, output: int, call: RunningCall | None) -> Origin:
        """Remember, and return, where a tensor came from; arguments as in `Origin`."""
        origin = self._known[id(tensor)] = Origin(weakref.ref(tensor), address, output, call)
        return origin

    def overwrite(self, result: torch.Tensor, module: str) -> None:
        """Note who else holds the memory that an activation function has written its result to.

        Args:
            result: The result, a new object for that memory.
            module: Path of the activation function.
        """
        memory = result.untyped_storage().data_ptr()
        for key, origin in self._known.items():
            tensor = origin.tensor()
            if tensor is not None and tensor is not result and tensor.untyped_storage().data_ptr() == memory:
                self._overwritten[key] = origin.tensor, module

    def overwriter_of(self, tensor: torch.Tensor) -> str | None:
        """Return the path of the activation function that wrote over a tensor, if one did."""
        found = self._overwritten.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None
