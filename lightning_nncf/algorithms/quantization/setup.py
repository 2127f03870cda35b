"""Where quantizers go and how they are configured: the outcome of placement, kept in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.graph.graph import InsertionPoint

__all__ = ["PointKind", "QuantizationPoint", "QuantizationSetup"]

PointKind = Literal["weight", "activation"]


@dataclass(frozen=True, kw_only=True)
class QuantizationPoint:
    """One place where a tensor is quantized.

    Args:
        kind: Whether a weight or an activation is quantized.
        point: Place in the graph.
        config: Number format.
        shape: Shape of the tensor seen while tracing, which fixes the shape of per-channel parameters.
        channel_axis: Axis of the channels, used when ``config.per_channel``.
        ops: Addresses of the ops whose input this point quantizes.
        computed: Whether the tensor is a weight that the network computes from parameters, as weight norm does.
    """

    kind: PointKind
    point: InsertionPoint
    config: QuantizerConfig
    shape: tuple[int, ...]
    channel_axis: int
    ops: tuple[str, ...] = ()
    computed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the point as plain values for a checkpoint."""
        return {
            "kind": self.kind,
            "point": {"kind": self.point.kind, "address": self.point.address, "port": self.point.port},
            "config": self.config.to_dict(),
            "shape": list(self.shape),
            "channel_axis": self.channel_axis,
            "ops": list(self.ops),
            **({"computed": True} if self.computed else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QuantizationPoint:
        """Rebuild a point from `to_dict`."""
        return cls(
            kind=values["kind"],
            point=InsertionPoint(**values["point"]),
            config=QuantizerConfig(**values["config"]),
            shape=tuple(values["shape"]),
            channel_axis=values["channel_axis"],
            ops=tuple(values["ops"]),
            computed=values.get("computed", False),
        )


@dataclass(frozen=True, kw_only=True)
class QuantizationSetup:
    """All quantization points of a network.

    Args:
        points: The points; a position in this tuple is the point's id.
        unified: Groups of ids that share one quantizer (the inputs of a concatenation).
        adjacent: Groups of ids that act on the same op (its input and its weight), used by mixed precision.
    """

    points: tuple[QuantizationPoint, ...]
    unified: tuple[tuple[int, ...], ...] = ()
    adjacent: tuple[tuple[int, ...], ...] = ()

    def count(self, kind: PointKind) -> int:
        """Count the points of one kind."""
        return sum(point.kind == kind for point in self.points)

    def to_dict(self) -> dict[str, Any]:
        """Return the setup as plain values for a checkpoint."""
        return {
            "points": [point.to_dict() for point in self.points],
            "unified": [list(group) for group in self.unified],
            "adjacent": [list(group) for group in self.adjacent],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QuantizationSetup:
        """Rebuild a setup from `to_dict`."""
        return cls(
            points=tuple(QuantizationPoint.from_dict(point) for point in values["points"]),
            unified=tuple(tuple(group) for group in values["unified"]),
            adjacent=tuple(tuple(group) for group in values["adjacent"]),
        )
