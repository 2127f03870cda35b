"""How the ranges of quantizers learn."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RangeLearning"]


@dataclass(frozen=True, kw_only=True)
class RangeLearning:
    """How the range of a quantizer learns.

    Args:
        logarithm: Train the logarithm of the scale or of the width, so that steps are relative and it stays positive.
        multiplier: Factor on the gradients of the range.
        lsq_values: Number of values that share the range, in one sample for activations. With it the gradients are
            divided by ``sqrt(lsq_values * quant_max)``, as in `Learned Step Size Quantization
            <https://arxiv.org/abs/1902.08153>`_, section 2.2.

    >>> RangeLearning(lsq_values=100).factor(quant_max=4)
    0.05
    """

    logarithm: bool = False
    multiplier: float = 1.0
    lsq_values: int | None = None

    def factor(self, quant_max: int) -> float:
        """Return the factor on the gradients of the range."""
        if self.lsq_values is None:
            return self.multiplier
        return float(self.multiplier / (self.lsq_values * quant_max) ** 0.5)
