"""Keeps optimizers from taking the range of a quantizer through zero."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.algorithms.quantization.range_floor import LEAST

__all__ = ["RangeGuard"]


class RangeGuard:
    """Lets no optimizer step take more than half of a scale or a width.

    The size of an optimizer's step has nothing to do with that of a range: a step of Adam that is right for weights is
    as large as the whole range of small ones. Without a limit it would go through zero, where all values of a channel
    become one and the sign of the gradient turns. Steps that take less are left as they are to the bit.

    Args:
        quantizers: The quantizers; those that learn as a logarithm need no limit.
    """

    def __init__(self, quantizers: Iterable[Quantizer]) -> None:
        distinct = {id(quantizer): quantizer for quantizer in quantizers}
        self._quantizers = [quantizer for quantizer in distinct.values() if not quantizer.learning.logarithm]
        self._least: list[Tensor] = []
        self._optimizers: tuple[Optimizer, ...] = ()

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Watch over the steps of these optimizers, once each."""
        known = self._optimizers
        self._optimizers = tuple(optimizers)
        for optimizer in self._optimizers:
            if all(optimizer is not each for each in known):
                optimizer.register_step_pre_hook(self._before)
                optimizer.register_step_post_hook(self._after)

    def _widths(self) -> list[Tensor]:
        # not kept: removing filters replaces parameters
        return [quantizer.get_parameter(quantizer.width) for quantizer in self._quantizers]

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        if self._quantizers:
            self._least = list(torch._foreach_abs(self._widths()))
            torch._foreach_mul_(self._least, 0.5)
            torch._foreach_clamp_min_(self._least, LEAST)

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        if self._least:
            torch._foreach_maximum_(self._widths(), self._least)
        self._least = []
