"""The mathematics of choosing bit widths, apart from networks and data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["choose", "compression_ratio", "count_sequences", "nearest", "perturbation", "rademacher", "sequences"]


def sequences(bits: Sequence[int], length: int) -> Iterator[tuple[int, ...]]:
    """Yield all sequences of bit widths that never fall, for layers of rising sensitivity.

    >>> list(sequences([4, 8], 2))
    [(4, 4), (8, 8), (4, 8)]
    """
    ordered = sorted(set(bits))
    for used in range(1, min(len(ordered), length) + 1):
        for values in combinations(ordered, used):
            for cuts in combinations(range(1, length), used - 1):
                ends = (*cuts, length)
                starts = (0, *cuts)
                yield tuple(
                    value for value, start, end in zip(values, starts, ends, strict=True) for _ in range(end - start)
                )


def count_sequences(bits: int, length: int) -> int:
    """Count what `sequences` yields: for each number of bit widths used, which ones, and where they change.

    >>> count_sequences(2, 2), count_sequences(3, 54)
    (3, 1540)
    """
    return sum(comb(bits, used) * comb(length - 1, used - 1) for used in range(1, bits + 1))


def nearest(bits: int, allowed: Sequence[int]) -> int:
    """Return the allowed bit width that is closest, the larger of two that are equally close.

    >>> nearest(6, [4, 8]), nearest(2, [4, 8])
    (8, 4)
    """
    return min(allowed, key=lambda each: (abs(each - bits), -each))


def compression_ratio(costs: npt.ArrayLike, bits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return how much less is spent than with 8 bits everywhere, each layer's cost weighted by its bits.

    Args:
        costs: [layers] cost of each layer.
        bits: [..., layers] bit widths.

    Returns:
        [...] ratios.

    >>> compression_ratio([72, 108], [[4, 8], [4, 4]]).tolist()
    [1.25, 2.0]
    """
    each = np.asarray(costs, dtype=np.float64)
    ratios: npt.NDArray[np.float64] = 8 * each.sum() / (np.asarray(bits, dtype=np.float64) @ each)
    return ratios


def choose(ratios: Sequence[float], metrics: Sequence[float], target: float) -> int | None:
    """Return the position of the smallest metric among ratios that reach the target, or nothing if none does.

    Of equal metrics the larger ratio wins.

    >>> choose([1, 2, 2, 3, 4, 6], [5, 1, 6, 3, 2, 4], target=3)
    4
    """
    reaching = [index for index, ratio in enumerate(ratios) if ratio >= target]
    return min(reaching, key=lambda index: (metrics[index], -ratios[index]), default=None)


def perturbation(weight: Tensor, quantized: Tensor) -> float:
    """Return the squared Euclidean distance between a weight and what is left of it after quantization.

    >>> perturbation(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    4.0
    """
    return float((quantized.detach().double() - weight.detach().double()).square().sum())


def rademacher(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a tensor of -1 and 1, each with probability one half, the same numbers on every device.

    >>> rademacher(torch.zeros(4), torch.Generator().manual_seed(0)).abs()
    tensor([1., 1., 1., 1.])
    """
    drawn = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return (2 * drawn - 1).to(device=like.device, dtype=like.dtype)
