"""Settings of one quantizer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["QuantizationMode", "QuantizerConfig"]

QuantizationMode = Literal["symmetric", "asymmetric"]


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Number format of one quantizer.

    Args:
        bits: Bit width, 2 to 8.
        mode: ``symmetric`` (learnable scale, zero maps to zero) or ``asymmetric`` (learnable low and range).
        signed: Whether values below zero are kept; ``None`` lets the initialization decide from the data.
        per_channel: One range per channel instead of one per tensor.
        narrow_range: Drop the lowest level, so that -127..127 stays symmetric around zero.
        half_range: Use one bit less on the same grid (overflow fix), -64..63 for 8 bits.

    >>> QuantizerConfig(bits=8, signed=True).quant_range()
    (-128, 127)
    >>> QuantizerConfig(bits=8, signed=True, half_range=True).quant_range()
    (-64, 63)
    >>> QuantizerConfig(bits=8, signed=True, narrow_range=True).quant_range()
    (-127, 127)
    >>> QuantizerConfig(bits=4, mode="asymmetric").quant_range()
    (0, 15)
    """

    bits: int = 8
    mode: QuantizationMode = "symmetric"
    signed: bool | None = None
    per_channel: bool = False
    narrow_range: bool = False
    half_range: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if not 2 <= self.bits <= 8:
            raise ValueError(f"`bits` must be from 2 to 8, got {self.bits}")
        if self.mode not in ("symmetric", "asymmetric"):
            raise ValueError(f"`mode` must be 'symmetric' or 'asymmetric', got {self.mode!r}")

    def quant_range(self) -> tuple[int, int]:
        """Return the inclusive bounds ``(quant_min, quant_max)`` of the integers.

        ``signed=None`` counts as unsigned, the state before the data decided.
        """
        bits = self.bits - 1 if self.half_range else self.bits
        if self.mode == "asymmetric":
            return int(self.narrow_range), 2**bits - 1
        if self.signed:
            return -(2 ** (bits - 1)) + int(self.narrow_range), 2 ** (bits - 1) - 1
        return 0, 2**bits - 1 - int(self.narrow_range)

    @property
    def levels(self) -> int:
        """Number of distinct values, ``quant_max - quant_min + 1``."""
        quant_min, quant_max = self.quant_range()
        return quant_max - quant_min + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values for a checkpoint."""
        return asdict(self)
