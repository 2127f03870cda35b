"""What `torch.autograd.Function` does around a backward, left out: it costs more than Python that a backward needs."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

__all__ = ["direct"]

_Class = TypeVar("_Class", bound=type[torch.autograd.Function])


def direct(function: _Class) -> _Class:
    """Let autograd call the ``backward`` of a function itself.

    It calls a method that looks for ``backward``, or for another method of the same purpose, every time: a quarter of
    what the backward of a small layer costs in Python.

    Args:
        function: A function with a ``backward`` and none of the other methods by which autograd may be taught.
    """
    node: Any = function._backward_cls
    node.apply = function.backward
    return function
