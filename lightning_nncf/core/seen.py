"""What a network is called with while it is calibrated."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_nncf.core.inputs import Arguments, describe, generate, limit_batch, merge, same_shapes
from lightning_nncf.errors import ConfigError

__all__ = ["SeenInputs"]

_SAMPLES = 32
_CALLS = 64


class SeenInputs:
    """Watch the inputs of a network: which values they hold, and the first of them.

    Use it as a context manager around calls of the network.

    Args:
        network: The network.
        description: Description of the inputs at capture, whose shapes stay; none if they are unknown.
    """

    def __init__(self, network: nn.Module, description: Any) -> None:
        self.description = description
        self.samples: Arguments | None = None
        self._network = network
        self._example = None if description is None else generate(description, torch.Generator().manual_seed(0))
        self._calls = 0

    def __enter__(self) -> SeenInputs:
        """Begin."""
        self._handle = self._network.register_forward_pre_hook(self._look, with_kwargs=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._handle.remove()

    def _look(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note one call; calls of another form than at capture, as of one branch of the network, are none of ours."""
        if self._example is None or self._calls >= _CALLS or not _same_form(self._example, (args, kwargs)):
            return
        try:
            found = describe((args, kwargs))
        except ConfigError:
            return
        if self.samples is None and same_shapes(self._example, (args, kwargs)):
            self.samples = _kept(limit_batch((args, kwargs), _SAMPLES))
        # The first call replaces what the capture saw, which may have been made up.
        weight = 1 / (self._calls + 1)
        self.description = merge(self.description, found, weight)
        self._calls += 1


def _same_form(first: Any, second: Any) -> bool:
    alike: bool = _form(first) == _form(second)
    return alike


def _form(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype
    if isinstance(value, dict):
        return {key: _form(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_form(item) for item in value]
    return type(value)


def _kept(arguments: Arguments) -> Arguments:
    """Copy the tensors of a call, since loaders may use their memory again."""
    args, kwargs = tree_map(
        lambda value: value.detach().cpu().clone() if isinstance(value, Tensor) else value, arguments
    )
    return args, kwargs
