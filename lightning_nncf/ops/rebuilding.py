"""Fake-quantized tensors are computed again in backward where a convolution would keep them.

A fake quantizer keeps its input, which the activation function before it keeps as well, and the convolution behind it
keeps its output: in a network of convolutions, batch norms and activations this is half of what the plain network
keeps. The output is a function of the input, costs one pass over memory, and is read at once when it is there again.

Fake-quantized weights are kept: computing those of more than 8 MB again made a step of ResNet-18 slower by 3 to 6 % of
a plain one, for 8 % of its memory.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_nncf.ops import dispatch

__all__ = ["rebuild_in_backward", "rebuild_input"]

_KEPT = {"ConvolutionBackward0": "_raw_saved_input"}
"""What nodes of autograd call the first of their inputs, which they keep."""

_LEAST_BYTES = 1 << 20
"""Smaller tensors are many, hold little, and would cost more calls than memory."""


def rebuild_in_backward(result: Any, x: Any = None) -> None:
    """Let the operation that made a result compute its input again in backward if that was fake-quantized.

    Does nothing for other inputs and operations, for small tensors, without autograd, or where somebody else decides
    what is kept (activation checkpointing, `torch.autograd.graph.saved_tensors_hooks`). Nor on a GPU, where time and
    memory of it were never measured. Not to be called under a compiler.

    Args:
        result: What the operation returned.
        x: Its first input, if that is known: a small one is seen from its size.

    >>> from lightning_nncf.ops import fake_quantize_symmetric
    >>> weight = torch.ones(8, 8, 1, 1, requires_grad=True)
    >>> x = fake_quantize_symmetric(torch.rand(1, 8, 256, 256), torch.ones(1, requires_grad=True), 0, 255, -1)
    >>> y = torch.nn.functional.conv2d(x, weight)
    >>> rebuild_in_backward(y)
    >>> torch.equal(y.grad_fn._saved_input, x)
    True
    """
    if isinstance(x, Tensor) and x.nbytes < _LEAST_BYTES:
        return
    if not isinstance(result, Tensor) or not result.is_cpu:
        return
    node: Any = result.grad_fn
    if type(node).__name__ in _KEPT:
        rebuild_input(node, node.next_functions[0][0])


def rebuild_input(node: Any, source: Any) -> None:
    """Do what `rebuild_in_backward` does, for the input of a node of autograd.

    Args:
        node: Node of an operation that keeps its first input.
        source: Node that made this input.
    """
    operator = dispatch.operator_of(source)
    if operator is not None and source.saved_tensors[0].nbytes >= _LEAST_BYTES:
        with contextlib.suppress(RuntimeError):  # it has hooks of somebody else
            getattr(node, _KEPT[type(node).__name__]).register_hooks(partial(_Recipe, operator, source), _Recipe.follow)


class _Recipe:
    """How to compute an output again.

    Args:
        operator: What computed it.
        source: The node of autograd that keeps what it was computed from.
        output: The output, which is forgotten.
    """

    def __init__(self, operator: Any, source: Any, output: Tensor) -> None:
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
