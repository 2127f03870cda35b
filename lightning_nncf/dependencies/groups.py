"""Groups of filters that are removed together, made from what depends on what."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lightning_nncf.dependencies.indices import pack, unpack
from lightning_nncf.dependencies.labels import Ids, components
from lightning_nncf.dependencies.propagation import Dependencies
from lightning_nncf.dependencies.values import Link, Role

__all__ = ["Group", "Member", "Structure", "make_structure"]


@dataclass(frozen=True, eq=False)
class Member:
    """The part of a parameter, a buffer or a tensor between layers that belongs to a group.

    Args:
        name: Name of the parameter or buffer, or of the place.
        dim: Dimension that is sliced.
        size: Its full size.
        role: What the slices are, see `Role`.
        positions: Indices along the dimension, shape [n].
        units: The unit of the group each belongs to, shape [n].
    """

    name: str
    dim: int
    size: int
    role: Role
    positions: Ids
    units: Ids

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "name": self.name,
            "dim": self.dim,
            "size": self.size,
            "role": self.role,
            "positions": pack(self.positions),
            "units": pack(self.units),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Member:
        """Read `to_dict`."""
        return cls(**{**values, "positions": unpack(values["positions"]), "units": unpack(values["units"])})


@dataclass(frozen=True, eq=False)
class Group:
    """Filters of one or several layers that can only be removed together.

    Args:
        name: Name of its first weight.
        units: How many can be removed independently: one filter of each layer, or a whole head.
        members: Everything that is sliced when a unit is removed.
        activations: Tensors between the layers whose channels go with the units, by the name of their place.
    """

    name: str
    units: int
    members: tuple[Member, ...]
    activations: tuple[Member, ...] = ()

    @property
    def filters(self) -> list[Member]:
        """The weights whose filters are ranked."""
        return [member for member in self.members if member.role == "filter"]

    @property
    def width(self) -> int:
        """How many channels of a layer one unit stands for, at least."""
        return min(member.positions.size // self.units for member in self.filters)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "name": self.name,
            "units": self.units,
            "members": [member.to_dict() for member in self.members],
            "activations": [member.to_dict() for member in self.activations],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Group:
        """Read `to_dict`."""
        members, activations = (tuple(map(Member.from_dict, values[key])) for key in ("members", "activations"))
        return cls(values["name"], values["units"], members, activations)


@dataclass(frozen=True)
class Structure:
    """Everything about a network that pruning needs to know.

    Args:
        groups: The groups that can be pruned.
        links: Attributes of modules that follow the size of a parameter.
        excluded: Weights that cannot be pruned, and why.
    """

    groups: tuple[Group, ...]
    links: tuple[Link, ...] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)

    def restricted(self, places: Collection[str]) -> Structure:
        """Return the structure with activations at some places alone."""
        groups = (
            replace(group, activations=tuple(each for each in group.activations if each.name in places))
            for group in self.groups
        )
        return replace(self, groups=tuple(groups))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "groups": [group.to_dict() for group in self.groups],
            "links": [vars(link) for link in self.links],
            "excluded": dict(self.excluded),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Structure:
        """Read `to_dict`."""
        return cls(
            tuple(map(Group.from_dict, values["groups"])),
            tuple(Link(**link) for link in values["links"]),
            dict(values["excluded"]),
        )


def make_structure(dependencies: Dependencies, vetoes: Mapping[str, str] | None = None) -> Structure:
    """Collect the groups of a network.

    Args:
        dependencies: Its dependencies.
        vetoes: Names of weights whose filters must stay, and why.

    Returns:
        The groups, in the order of their first weight; those with a filter that must stay are excluded.
    """
    entries, roles = dependencies.entries, dependencies.records.roles
    labels = entries.labels()
    keys = [key for key, _ in entries.items() if roles.get(key) == "filter"]
    ids = dict(entries.items())
    owner = _owners(labels, [ids[key] for key in keys]) if keys else np.zeros(0, dtype=np.int64)
    reasons = _reasons(dependencies)
    group_of = np.full(entries.count, -1, dtype=np.int64)
    unit_of = np.full(entries.count, -1, dtype=np.int64)
    counts: list[tuple[str, int]] = []
    excluded: dict[str, str] = {}
    for root in dict.fromkeys(owner.tolist()):
        chosen = [keys[index] for index in np.flatnonzero(owner == root)]
        units = np.unique(np.concatenate([labels[ids[key]] for key in chosen]))
        reason = _veto(chosen, units, reasons, vetoes or {})
        if reason is None and units.size < 2:
            reason = "all its filters belong together"
        if reason is not None:
            excluded.update({name: reason for name, _ in chosen})
            continue
        group_of[units], unit_of[units] = len(counts), np.arange(units.size)
        counts.append((chosen[0][0], units.size))
    members: list[list[Member]] = [[] for _ in counts]
    activations: list[list[Member]] = [[] for _ in counts]

    def share(lists: list[list[Member]], name: str, dim: int, role: Role, numbers: Ids) -> None:
        found = group_of[labels[numbers]]
        for index in np.unique(found[found >= 0]).tolist():
            positions = np.flatnonzero(found == index)
            units = unit_of[labels[numbers[positions]]]
            lists[index].append(Member(name, dim, numbers.size, role, positions, units))

    for (name, dim), numbers in entries.items():
        if (name, dim) in roles:
            share(members, name, dim, roles[name, dim], numbers)
    for place, (axis, numbers) in dependencies.channels.items():
        share(activations, place, axis, "activation", numbers)
    groups = tuple(
        Group(name, size, tuple(sliced), tuple(between))
        for (name, size), sliced, between in zip(counts, members, activations, strict=True)
    )
    touched = {(member.name, member.dim) for group in groups for member in group.members}
    links = tuple(link for link in dependencies.records.links.values() if (link.parameter, link.dim) in touched)
    return Structure(groups, links, excluded)


def _owners(labels: Ids, filters: list[Ids]) -> Ids:
    """Return for each list of filters the first one that it shares a label with, through others or directly."""
    nodes = [np.full(numbers.size, index) for index, numbers in enumerate(filters)]
    shared, inverse = np.unique(labels[np.concatenate(filters)], return_inverse=True)
    found = components(len(filters) + shared.size, np.concatenate(nodes), inverse + len(filters))
    return found[: len(filters)]


def _reasons(dependencies: Dependencies) -> dict[int, str]:
    """Return for each label that must stay the first reason."""
    labels = dependencies.entries.labels()
    reasons: dict[int, str] = {}
    for freeze in dependencies.entries.frozen:
        for label in np.unique(labels[freeze.ids]).tolist():
            reasons.setdefault(label, f"{freeze.reason} ({freeze.address})")
    return reasons


def _veto(
    chosen: list[tuple[str, int]], units: Ids, reasons: Mapping[int, str], vetoes: Mapping[str, str]
) -> str | None:
    """Return why a group must stay, if it must."""
    for name, _ in chosen:
        if name in vetoes:
            return vetoes[name] if name == chosen[0][0] else f"depends on {name}: {vetoes[name]}"
    return next((reasons[label] for label in units.tolist() if label in reasons), None)
