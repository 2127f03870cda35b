"""Lists of number formats, best first: expanding, constraining, merging and requantizing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lightning_nncf.algorithms.quantization.placement.settings import Constraints
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizationMode, QuantizerConfig

__all__ = [
    "Candidates",
    "FormatFamily",
    "constrain",
    "expand",
    "merge_into_base",
    "merge_single",
    "requantizes",
    "settle",
]

Candidates = tuple[QuantizerConfig, ...]
"""Allowed formats of one quantizer in the order of preference."""


@dataclass(frozen=True, kw_only=True)
class FormatFamily:
    """A row of a hardware table: every combination of its alternatives is allowed.

    Args:
        bits: Bit widths.
        modes: Quantization modes.
        per_channel: Granularities.
        signed: Signedness of symmetric formats; ``None`` lets the data decide.
    """

    bits: tuple[int, ...] = (8,)
    modes: tuple[QuantizationMode, ...] = ("symmetric", "asymmetric")
    per_channel: tuple[bool, ...] = (False,)
    signed: bool | None = None


def expand(families: Iterable[FormatFamily]) -> Candidates:
    """Return all combinations of the families, earlier alternatives first.

    >>> [(c.mode, c.per_channel) for c in expand([FormatFamily(per_channel=(True, False))])]
    [('symmetric', True), ('symmetric', False), ('asymmetric', True), ('asymmetric', False)]
    """
    return tuple(
        dict.fromkeys(
            QuantizerConfig(
                bits=bits,
                mode=mode,
                per_channel=per_channel,
                signed=family.signed if mode == "symmetric" else None,
            )
            for family in families
            for bits, mode, per_channel in itertools.product(family.bits, family.modes, family.per_channel)
        )
    )


def constrain(candidates: Iterable[QuantizerConfig], constraints: Constraints) -> Candidates:
    """Return the candidates that satisfy the constraints; undecided signedness takes the constraint's.

    >>> len(constrain(expand([FormatFamily()]), Constraints(mode="asymmetric")))
    1
    >>> constrain(expand([FormatFamily()]), Constraints(bits=4))
    ()
    """
    kept = []
    for config in candidates:
        if any(getattr(config, name) != value for name, value in constraints.given().items() if name != "signed"):
            continue
        if constraints.signed is None or config.mode == "asymmetric":
            kept.append(config)
        elif config.signed in (None, constraints.signed):
            kept.append(replace(config, signed=constraints.signed))
    return tuple(dict.fromkeys(kept))


def requantizes(config: QuantizerConfig, base: QuantizerConfig) -> bool:
    """Whether a tensor quantized to ``base`` may be quantized to ``config`` after that.

    >>> requantizes(QuantizerConfig(bits=4), QuantizerConfig(bits=8))
    True
    >>> requantizes(QuantizerConfig(mode="asymmetric"), QuantizerConfig(mode="symmetric"))
    False
    """
    if config.bits > base.bits or (config.mode == "asymmetric" and base.mode == "symmetric"):
        return False
    if config.signed is None and base.signed is not None:
        return False
    return not (config.signed and base.signed is False)


def _in_joint_order(configs: Iterable[QuantizerConfig], lists: Sequence[Candidates]) -> Candidates:
    def rank(config: QuantizerConfig) -> tuple[int, int, bool, bool]:
        position = sum(found.index(config) if config in found else len(found) for found in lists)
        return position, -config.bits, config.per_channel, config.mode == "asymmetric"

    return tuple(sorted(dict.fromkeys(configs), key=rank))


def merge_single(lists: Sequence[Candidates]) -> Candidates:
    """Return the formats that suit every list, ordered by the sum of their positions.

    Ties go to more bits, then per tensor, then symmetric.

    >>> merge_single([(QuantizerConfig(bits=8), QuantizerConfig(bits=4)), (QuantizerConfig(bits=4),)])[0].bits
    4
    """
    shared = [config for config in lists[0] if all(config in other for other in lists[1:])]
    return _in_joint_order(shared, lists)


def merge_into_base(lists: Sequence[Candidates]) -> Candidates:
    """Return the formats that each list either contains or can be requantized from.

    >>> merge_into_base([(QuantizerConfig(bits=8),), (QuantizerConfig(bits=4),)])[0].bits
    8
    """

    def suits(config: QuantizerConfig, candidates: Candidates) -> bool:
        return config in candidates or any(requantizes(other, config) for other in candidates)

    every = [config for candidates in lists for config in candidates]
    return _in_joint_order([config for config in every if all(suits(config, found) for found in lists)], lists)


def settle(candidates: Candidates, base: Candidates) -> Candidates:
    """Return the candidates that may follow the first of ``base``, all of them if none may."""
    kept = tuple(config for config in candidates if config == base[0] or requantizes(config, base[0]))
    return kept or candidates
