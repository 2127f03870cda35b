"""How far a network is compressed."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

__all__ = ["CompressionStage"]


class CompressionStage(IntEnum):
    """Stage of one algorithm or of all together, ordered from plain to compressed."""

    UNCOMPRESSED = 0
    PARTIALLY_COMPRESSED = 1
    FULLY_COMPRESSED = 2

    @classmethod
    def combine(cls, stages: Iterable[CompressionStage]) -> CompressionStage:
        """Return the stage of several algorithms together: theirs if equal, else partly compressed.

        >>> S = CompressionStage
        >>> S.combine([S.FULLY_COMPRESSED, S.UNCOMPRESSED]).name
        'PARTIALLY_COMPRESSED'
        >>> S.combine([S.FULLY_COMPRESSED]).name
        'FULLY_COMPRESSED'
        >>> S.combine([]).name
        'UNCOMPRESSED'
        """
        found = set(stages)
        if not found:
            return cls.UNCOMPRESSED
        return found.pop() if len(found) == 1 else cls.PARTIALLY_COMPRESSED
