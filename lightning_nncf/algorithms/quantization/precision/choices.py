"""Assignments of bit widths that HAWQ compares: what they cost and how sensitive the loss is to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isclose

import numpy as np
import numpy.typing as npt

from lightning_nncf.algorithms.quantization.initialization.initializer_config import PrecisionConfig
from lightning_nncf.algorithms.quantization.precision.functional import (
    choose,
    compression_ratio,
    count_sequences,
    nearest,
    sequences,
)
from lightning_nncf.algorithms.quantization.precision.space import SearchSpace
from lightning_nncf.errors import ConfigError

__all__ = ["Choices", "evaluate_choices", "pick"]

_MOST = 1_000_000
"""Sequences that are looked at; two bit widths of a thousand layers are a thousand, seven of fifty are 25 million."""
_CHUNK = 4096
_NONE = 99
Table = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choices:
    """All assignments of bits that were looked at.

    Args:
        bits: [assignments, points] bit widths.
        ratios: [assignments] compression ratios.
        metrics: [assignments] sensitivities, lower is better.
    """

    bits: Table
    ratios: Numbers
    metrics: Numbers


def evaluate_choices(
    space: SearchSpace,
    traces: Mapping[int, float],
    perturbations: Mapping[int, Mapping[int, float]],
    sizes: Mapping[int, int],
    config: PrecisionConfig,
) -> Choices:
    """Look at all assignments in which bits never fall as traces rise.

    Args:
        space: What may be chosen.
        traces: Average trace of each weight that has a choice.
        perturbations: For each of these weights and each of its bit widths the squared change of the weight.
        sizes: Number of values of every weight.
        config: How activations follow and what the ratio is about.

    Raises:
        ConfigError: There are too many assignments, or the strict mode leaves none.
    """
    order = sorted(traces, key=lambda index: (traces[index], index))
    widths = sorted({bits for index in order for bits in space.bits(index)})
    count = count_sequences(len(widths), len(order))
    if count > _MOST:
        raise ConfigError(
            f"`initializer.precision.bits`: {len(widths)} bit widths for {len(order)} layers are {count:,} "
            f"assignments, more than {_MOST:,}; give fewer bit widths"
        )
    bits, ratios, metrics = [], [], []
    for chunk in _chunks(space, order, widths):
        rows = _strict(space, chunk) if config.bitwidth_assignment_mode == "strict" else _liberal(space, chunk)
        bits.append(rows)
        ratios.append(_ratios(space, rows, sizes, config))
        metrics.append(_metrics(rows, traces, perturbations))
    found = np.concatenate(bits)
    if len(found) == 0:
        raise ConfigError(
            "`initializer.precision.bitwidth_assignment_mode: strict` leaves no assignment: some quantizers of one "
            "layer have no bit width in common; use `liberal`, or other `bits`"
        )
    return Choices(found, np.concatenate(ratios), np.concatenate(metrics))


def pick(choices: Choices, target: float) -> int:
    """Return the position of the least sensitive assignment that reaches a compression ratio.

    Raises:
        ConfigError: The ratio lies outside of what the assignments have.
    """
    low, high = float(choices.ratios.min()), float(choices.ratios.max())
    near = isclose(target, high, rel_tol=1e-9)
    found = choose(choices.ratios.tolist(), choices.metrics.tolist(), high if near else target)
    if found is None or target < low:
        raise ConfigError(
            f"`initializer.precision.compression_ratio` must be from {low:.4g} to {high:.4g} with these `bits` and "
            f"this network, got {target:.4g}"
        )
    return found


def _chunks(space: SearchSpace, order: Sequence[int], widths: Sequence[int]) -> Iterator[Table]:
    """Yield assignments with the bits of weights set; everything else has its first option."""
    first = [space.bits(index)[0] for index in range(len(space.options))]
    closest = {index: {bits: nearest(bits, space.bits(index)) for bits in widths} for index in order}
    rest = sequences(widths, len(order))
    seen: set[tuple[int, ...]] = set()
    while batch := list(islice(rest, _CHUNK)):
        rows = []
        for sequence in batch:
            mapped = tuple(closest[index][bits] for index, bits in zip(order, sequence, strict=True))
            if mapped not in seen:
                seen.add(mapped)
                rows.append(mapped)
        table: Table = np.tile(np.array(first, dtype=np.int64), (len(rows), 1))
        table[:, list(order)] = np.array(rows, dtype=np.int64).reshape(len(rows), len(order))
        yield table


def _groups(space: SearchSpace) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the weights and the activations of each group of adjacent points, single points too."""
    grouped = {index for group in space.adjacent for index in group}
    alone = [(index,) for index in range(len(space.options)) if index not in grouped]
    for group in (*space.adjacent, *alone):
        yield [i for i in group if space.is_weight(i)], [i for i in group if not space.is_weight(i)]


def _liberal(space: SearchSpace, table: Table) -> Table:
    """Give activations the fewest bits that both they and a weight of their group have, else their fewest."""
    result = table.copy()
    for weights, activations in _groups(space):
        for index in activations:
            options = space.bits(index)
            if len(options) == 1 or not weights:
                continue
            around = table[:, weights]
            least = np.where(np.isin(around, options), around, _NONE).min(axis=1)
            result[:, index] = np.where(least == _NONE, options[0], least)
    return result


def _strict(space: SearchSpace, table: Table) -> Table:
    """Give activations the bits of the weights of their group; drop rows in which they cannot have them."""
    result = table.copy()
    valid = np.ones(len(table), dtype=np.bool_)
    for weights, activations in _groups(space):
        if not weights:
            continue
        bits = table[:, weights[0]]
        valid &= (table[:, weights] == bits[:, None]).all(axis=1)
        for index in activations:
            valid &= np.isin(bits, space.bits(index))
            result[:, index] = bits
    return result[valid]


def _ratios(space: SearchSpace, table: Table, sizes: Mapping[int, int], config: PrecisionConfig) -> Numbers:
    """Return the compression ratio of each row."""
    if config.compression_ratio_of == "size":
        return compression_ratio(np.array(list(sizes.values())), table[:, list(sizes)])
    weights = [index for index, flops in enumerate(space.flops) if flops > 0]
    used = np.stack([table[:, [index, *space.feeding[index]]].max(axis=1) for index in weights], axis=1)
    return compression_ratio(np.array([space.flops[index] for index in weights]), used)


def _metrics(table: Table, traces: Mapping[int, float], perturbations: Mapping[int, Mapping[int, float]]) -> Numbers:
    """Return the sensitivity of each row: the sum of traces times perturbations."""
    result: Numbers = np.zeros(len(table))
    for index, trace in traces.items():
        costs: Numbers = np.zeros(max(perturbations[index]) + 1)
        for bits, change in perturbations[index].items():
            # a negative trace is noise or a saddle: changing such a weight is free at best, no gain
            costs[bits] = max(trace, 0.0) * change
        result += costs[table[:, index]]
    return result
