"""Functions of autograd whose backward is called without the Python that PyTorch puts around it."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

__all__ = ["direct"]

_Class = TypeVar("_Class", bound=type[torch.autograd.Function])


def direct(function: _Class) -> _Class:
    """Let autograd call the ``backward`` of a function itself.

    It calls a method that looks for ``backward``, or for another method of the same purpose, every time. Between the
    layers of a network, whose data has emptied the caches of everything else, that takes as long as many kernels.

    Args:
        function: A function with a ``backward`` and none of the other methods by which autograd may be taught.
    """
    node: Any = function._backward_cls
    node.apply = function.backward
    return function
