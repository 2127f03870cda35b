"""The integer grid of one quantizer as numpy arrays, and the integers of a weight on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_nncf.algorithms.quantization.quantizers import Quantizer

__all__ = ["Grid"]

_SAFE = 64
"""Largest magnitude of an 8-bit weight with which no sum of two products overflows 16 bits, that of half range."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Integers ``quant_min..quant_max`` and what they stand for, ``(integer - zero_point) * scale``.

    Args:
        scale: ``[1]`` per tensor or ``[C]`` per channel, float32.
        zero_point: Integers of the shape of `scale`.
        quant_min: Smallest integer.
        quant_max: Largest integer.
        axis: Axis of the channels, -1 per tensor.
        bits: Bit width asked for.
        step: Distance between neighbouring integers, 2 for the two signs of a binary weight.

    >>> grid = Grid(scale=np.ones(1, np.float32), zero_point=np.zeros(1, np.int64), quant_min=-8, quant_max=7, axis=-1)
    >>> grid.shifted(8).quant_min, grid.shifted(8).zero_point
    (0, array([8]))
    """

    scale: NDArray[Any]
    zero_point: NDArray[Any]
    quant_min: int
    quant_max: int
    axis: int
    bits: int = 8
    step: int = 1

    @classmethod
    def of(cls, quantizer: Quantizer) -> Grid:
        """Read the grid of a quantizer."""
        with torch.no_grad():
            scale, zero_point, quant_min, quant_max = quantizer.quantization_parameters()
        return cls(
            scale=scale.detach().cpu().float().reshape(-1).numpy(),
            zero_point=zero_point.detach().cpu().reshape(-1).numpy().astype(np.int64),
            quant_min=int(quant_min),
            quant_max=int(quant_max),
            axis=-1 if scale.numel() == 1 else int(quantizer.axis),
            bits=quantizer.config.bits,
        )

    @property
    def per_channel(self) -> bool:
        """Whether each channel has its own scale."""
        return self.axis >= 0

    @property
    def levels(self) -> int:
        """Number of integers."""
        return (self.quant_max - self.quant_min) // self.step + 1

    def low(self) -> NDArray[Any]:
        """Return the smallest value of each channel, float32."""
        return ((self.quant_min - self.zero_point) * self.scale.astype(np.float64)).astype(np.float32)

    def high(self) -> NDArray[Any]:
        """Return the largest value of each channel, float32."""
        return ((self.quant_max - self.zero_point) * self.scale.astype(np.float64)).astype(np.float32)

    def shifted(self, offset: int) -> Grid:
        """Return the same values under integers that are larger by `offset`."""
        return self._with(
            zero_point=self.zero_point + offset, low=self.quant_min + offset, high=self.quant_max + offset
        )

    def full(self) -> Grid:
        """Return the full 8 bits with the same step and zero point, which hold all values of this grid."""
        low, high = (-128, 127) if self.quant_min < 0 else (0, 255)
        return self._with(zero_point=self.zero_point, low=low, high=high)

    def for_weight(self, integers: NDArray[Any]) -> tuple[Grid, NDArray[Any]]:
        """Return a weight on the int8 grid with zero point 0, which alone OpenVINO runs on integers in a convolution.

        Signed weights are there already. Others go there if they fit and their products cannot overflow where signed
        ones would; their values stay the same.

        Args:
            integers: The weight on this grid.

        Returns:
            The grid to write and the integers on it.
        """
        values = integers - self.spread(self.zero_point, integers.ndim)
        if self.quant_min >= 0 and values.size and np.abs(values).max() > _SAFE:
            return self, integers
        return self._with(zero_point=np.zeros_like(self.zero_point), low=-128, high=127), values

    def _with(self, *, zero_point: NDArray[Any], low: int, high: int) -> Grid:
        return replace(self, zero_point=zero_point, quant_min=low, quant_max=high)

    def spread(self, values: NDArray[Any], rank: int) -> NDArray[Any]:
        """Reshape values of one per channel so that they broadcast against a tensor of `rank` dimensions."""
        if not self.per_channel:
            return values.reshape([1] * rank)
        shape = [1] * rank
        shape[self.axis] = -1
        return values.reshape(shape)

    def integers(self, quantizer: Quantizer, weight: NDArray[Any]) -> NDArray[Any]:
        """Return the integers of a weight, int64.

        They come from the quantizer's own output, not from a second formula: a value half-way between two integers
        then cannot fall on one in training and on the other in the file.

        Args:
            quantizer: The quantizer whose grid this is.
            weight: Float values.
        """
        with torch.no_grad():
            # The instance's forward is the export marker by now.
            values = type(quantizer).forward(quantizer, torch.tensor(weight, dtype=torch.float32)).numpy()
        scale, zero_point = self.spread(self.scale, values.ndim), self.spread(self.zero_point, values.ndim)
        integers: NDArray[Any] = np.rint(values.astype(np.float64) / scale).astype(np.int64) + zero_point
        clipped: NDArray[Any] = np.clip(integers, self.quant_min, self.quant_max)
        return clipped

    def values(self, integers: NDArray[Any]) -> NDArray[Any]:
        """Return what integers stand for, float32."""
        scale, zero_point = self.spread(self.scale, integers.ndim), self.spread(self.zero_point, integers.ndim)
        result: NDArray[Any] = ((integers - zero_point).astype(np.float32) * scale).astype(np.float32)
        return result
