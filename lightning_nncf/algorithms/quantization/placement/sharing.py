"""Quantizers that share a scale because the user asks for it, after all of them found their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_nncf.algorithms.quantization.placement.candidates import merge_single
from lightning_nncf.algorithms.quantization.placement.propagation import Group, Propagation
from lightning_nncf.errors import PlacementError, ScopeError, near

__all__ = ["ScaleGroup", "share_scales"]

ScaleGroup = Mapping[str, Sequence[str]]
"""Ops whose activation quantizers share one scale: what the user wrote to the addresses it selects."""


def share_scales(propagation: Propagation, lists: Sequence[ScaleGroup], *, validate: bool) -> None:
    """Join the quantizers of ops into one group for each list.

    The quantizers of an op are those of its inputs; those of its output where its inputs are not quantized.

    Args:
        propagation: Quantizers at their places.
        lists: Groups of ops.
        validate: Whether ops without activation quantizers are an error.

    Raises:
        ScopeError: An entry names ops without activation quantizers.
        PlacementError: The ops of a list have no format per tensor in common.
    """
    for entries in lists:
        groups: dict[Group, None] = {}
        for written, addresses in entries.items():
            found = [group for address in addresses for group in _groups_of(propagation, address)]
            if not found and validate:
                known = [op for quantizer in propagation.quantizers for op in quantizer.ops]
                raise ScopeError(
                    f"`activations.unified_scale_ops`: {written!r} has no activation quantizer to share a scale with "
                    f"others; {near(written, known) or 'name an op whose inputs or outputs are quantized'}"
                )
            groups.update(dict.fromkeys(found))
        if len(groups) > 1:
            _join(propagation, list(groups), " and ".join(map(repr, entries)))


def _groups_of(propagation: Propagation, address: str) -> list[Group]:
    unit = propagation.units.of[address]
    inside = {op.address for op in unit.ops}
    before = [group for group in propagation.groups if any(address in each.ops for each in group.members)]
    if before:
        return before
    return [
        group
        for group in propagation.groups
        if any(home.kind == "output" and home.address in inside for each in group.members for home in each.homes)
    ]


def _join(propagation: Propagation, groups: Sequence[Group], written: str) -> None:
    shared = merge_single([tuple(config for config in group.candidates if not config.per_channel) for group in groups])
    if not shared:
        raise PlacementError(
            f"`activations.unified_scale_ops`: {written} have no format per tensor in common, so that they cannot "
            "share a scale. Relax the constraints on them, or take one out of the list"
        )
    propagation.join(groups, shared)
