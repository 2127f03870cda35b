"""Fake-quantized activations are computed again in backward where a convolution would keep them.

A fake quantizer keeps its input, which the activation function before it keeps as well, and the convolution behind it
keeps its output: in a network of convolutions, batch norms and activations this is half of what the plain network
keeps. The output is a function of the input, costs one pass over memory, and is read at once when it is there again.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from lightning_nncf.ops import dispatch

__all__ = ["rebuild_in_backward"]

_LEAST_BYTES = 2 << 20
"""Smaller tensors are many, hold little, and would cost more calls than memory."""

_SAVED_INPUTS = {"ConvolutionBackward0": "_raw_saved_input"}
"""What the nodes of autograd that keep their first input call it."""


def rebuild_in_backward(values: Any, result: Any) -> None:
    """Let the operation that made a result compute its input again in backward, if that was fake-quantized.

    Does nothing for other inputs and operations, for small tensors, without autograd, or where somebody else decides
    what is kept (activation checkpointing, `torch.autograd.graph.saved_tensors_hooks`, ``torch.compile``).

    Args:
        values: What the operation was called with.
        result: What it returned.

    >>> from lightning_nncf.ops import fake_quantize_symmetric
    >>> weight = torch.ones(8, 8, 1, 1, requires_grad=True)
    >>> x = fake_quantize_symmetric(torch.rand(1, 8, 256, 256), torch.ones(1, requires_grad=True), 0, 255, -1)
    >>> y = torch.nn.functional.conv2d(x, weight)
    >>> rebuild_in_backward(x, y)
    >>> torch.equal(y.grad_fn._saved_input, x)
    True
    """
    if not isinstance(values, Tensor) or not isinstance(result, Tensor) or torch.compiler.is_compiling():
        return
    node, source = result.grad_fn, values.grad_fn
    if node is None or source is None or values.nbytes < _LEAST_BYTES:
        return
    name = _SAVED_INPUTS.get(type(node).__name__)
    operator = dispatch.operator_of(source)
    if name is None or operator is None or node.next_functions[0][0] is not source:
        return
    with contextlib.suppress(RuntimeError):  # it has hooks of somebody else
        getattr(node, name).register_hooks(lambda kept: _Recipe(operator, source), _Recipe.follow)


class _Recipe:
    """How to compute an output again.

    Args:
        operator: What computed it.
        source: The node of autograd that keeps what it was computed from.
    """

    def __init__(self, operator: Any, source: Any) -> None:
        self._operator = operator
        self._inputs = tuple(kept.detach() for kept in source.saved_tensors)
        self._versions = [kept._version for kept in self._inputs]
        self._settings = source.settings

    def follow(self) -> Tensor:
        """Compute the output."""
        if [kept._version for kept in self._inputs] != self._versions:
            raise RuntimeError(
                "a tensor needed for the gradient of a convolution of fake-quantized values was modified in place "
                "between forward and backward: the values before the quantizer, or its range"
            )
        with torch.no_grad():
            result: Tensor = self._operator(*self._inputs, *self._settings)
        return result
