"""What a search for bit widths may choose from, and what its choices cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lightning_nncf.algorithms.quantization.initialization.initializer_config import PrecisionConfig
from lightning_nncf.algorithms.quantization.placement.candidates import Candidates
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.errors import ConfigError
from lightning_nncf.graph.flops import layer_costs
from lightning_nncf.graph.graph import NetworkGraph

__all__ = ["DEFAULT_BITS", "SearchSpace", "changed", "search_space"]

DEFAULT_BITS = (2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Choices of a search, by position of the quantization point.

    Args:
        kinds: Whether each point is of a weight or of an activation.
        options: Formats that a point may have, fewest bits first; points that share a quantizer have the same.
        flops: FLOPs of one sample in which a weight takes part; 0 for activations.
        feeding: For each weight the activation points at the other inputs of its ops; empty for activations.
        adjacent: Groups of points that act on the same ops.
    """

    kinds: tuple[Literal["weight", "activation"], ...]
    options: tuple[Candidates, ...]
    flops: tuple[int, ...]
    feeding: tuple[tuple[int, ...], ...]
    adjacent: tuple[tuple[int, ...], ...]

    def is_weight(self, index: int) -> bool:
        """Whether a point is of a weight."""
        return self.kinds[index] == "weight"

    def bits(self, index: int) -> tuple[int, ...]:
        """Return the bit widths that a point may have, ascending."""
        return tuple(config.bits for config in self.options[index])

    def format(self, index: int, bits: int) -> QuantizerConfig:
        """Return the format of a point for one of its bit widths."""
        return next(config for config in self.options[index] if config.bits == bits)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "kinds": list(self.kinds),
            "options": [[config.to_dict() for config in each] for each in self.options],
            "flops": list(self.flops),
            "feeding": [list(each) for each in self.feeding],
            "adjacent": [list(each) for each in self.adjacent],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSpace:
        """Read `to_dict`."""
        return cls(
            kinds=tuple(values["kinds"]),
            options=tuple(tuple(QuantizerConfig(**config) for config in each) for each in values["options"]),
            flops=tuple(values["flops"]),
            feeding=tuple(tuple(each) for each in values["feeding"]),
            adjacent=tuple(tuple(each) for each in values["adjacent"]),
        )


def search_space(
    graph: NetworkGraph, setup: QuantizationSetup, formats: Sequence[Candidates], config: PrecisionConfig, device: str
) -> SearchSpace:
    """Return what may be chosen: never more bits than a point was placed with, in its mode and granularity.

    Args:
        graph: The graph.
        setup: The points.
        formats: For each point the formats that the device allows.
        config: Which bit widths and which group are searched.
        device: Name of the device, for messages.

    Raises:
        ConfigError: No quantizer has a choice.
    """
    bits = sorted(set(config.bits or DEFAULT_BITS))
    group = config.target_quantizer_group
    options: list[Candidates] = []
    for point, allowed in zip(setup.points, formats, strict=True):
        here = point.config
        alike = {each.bits: each for each in allowed if (each.mode, each.per_channel) == (here.mode, here.per_channel)}
        wanted = group in (None, f"{point.kind}s")
        found = [alike[each] for each in bits if each in alike and each <= here.bits] if wanted else []
        options.append(tuple(found) or (here,))
    if all(len(each) == 1 for each in options):
        raise ConfigError(
            f"`initializer.precision`: no quantizer has a choice between bit widths: {_show(bits)} are asked for, "
            f"`target_device` {device!r} allows {_show({each.bits for found in formats for each in found})} and "
            f"quantizers were placed with {_show({point.config.bits for point in setup.points})}; `TRIAL` allows all"
        )
    work: dict[str, int] = {}
    for layer in layer_costs(graph):
        work[layer.address] = work.get(layer.address, 0) + layer.cost().flops
    weights = [point.kind == "weight" for point in setup.points]
    return SearchSpace(
        kinds=tuple(point.kind for point in setup.points),
        options=tuple(options),
        flops=tuple(
            sum(work.get(op, 0) for op in point.ops) if is_weight else 0
            for point, is_weight in zip(setup.points, weights, strict=True)
        ),
        feeding=tuple(
            tuple(
                other
                for other, each in enumerate(setup.points)
                if is_weight and not weights[other] and not set(each.ops).isdisjoint(point.ops)
            )
            for point, is_weight in zip(setup.points, weights, strict=True)
        ),
        adjacent=_joined(setup.adjacent, setup.unified),
    )


def _joined(adjacent: Sequence[tuple[int, ...]], unified: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Join groups that overlap.

    >>> _joined([(0, 1), (2, 3)], [(1, 4)])
    ((0, 1, 4), (2, 3))
    """
    groups: list[set[int]] = []
    for group in (*adjacent, *unified):
        touching = [each for each in groups if not each.isdisjoint(group)]
        merged = set(group).union(*touching)
        groups = [each for each in groups if each.isdisjoint(group)] + [merged]
    return tuple(sorted(tuple(sorted(group)) for group in groups))


def _show(bits: Any) -> str:
    """Write bit widths for an error message."""
    return ", ".join(map(str, sorted(bits)))


def changed(config: QuantizerConfig, target: QuantizerConfig) -> QuantizerConfig:
    """Return a format with the bits of another, and what goes with them, but the sign that data decided on."""
    return replace(config, bits=target.bits, half_range=target.half_range, narrow_range=target.narrow_range)
