"""Learned global ranking: an evolution that makes importance comparable between layers.

Chin et al., "Towards Efficient Model Compression via Learned Global Ranking", CVPR 2020.
"""

from __future__ import annotations

import json
import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from lightning_nncf.algorithms.pruning.config import LegrConfig
from lightning_nncf.errors import ConfigError
from lightning_nncf.files import write_text

__all__ = ["Candidate", "evolve", "load_coefficients", "save_coefficients"]

Candidate = dict[str, tuple[float, float]]
"""Weight to scale and shift of the importance of its filters."""
_SLOWING = 1.25


def evolve(
    spreads: Mapping[str, float],
    settings: LegrConfig,
    reward: Callable[[Candidate], float],
    progress: Callable[[int], None] = lambda generation: None,
) -> Candidate:
    """Find scales and shifts with the highest reward.

    The first candidates are random, the last of them changes nothing. After these the best of a random few in the
    population is mutated in a few layers, ever less, and takes the place of the oldest.

    Args:
        spreads: Weight to the standard deviation of the importance of its filters, the size of random shifts.
        settings: Settings of the evolution.
        reward: Judges a candidate; higher is better.
        progress: Called with the number of every generation.

    >>> found = evolve({"a": 1.0}, LegrConfig(generations=200), lambda c: -abs(c["a"][0] - 2) - abs(c["a"][1]))
    >>> abs(found["a"][0] - 2) < 0.2, abs(found["a"][1]) < 0.2
    (True, True)
    """
    chance = random.Random(settings.random_seed)
    population: deque[tuple[float, Candidate]] = deque(maxlen=settings.population_size)
    best: tuple[float, Candidate] = (-math.inf, dict.fromkeys(spreads, (1.0, 0.0)))
    first = min(settings.population_size, settings.generations)
    for generation in range(settings.generations):
        progress(generation)
        if generation == first - 1:
            candidate = dict.fromkeys(spreads, (1.0, 0.0))
        elif generation < first:
            candidate = {name: _random(chance, settings.scale_sigma, spread) for name, spread in spreads.items()}
        else:
            rivals = chance.sample(list(population), min(settings.num_samples, len(population)))
            parent = max(rivals, key=lambda each: each[0])[1]
            sigma = settings.scale_sigma * (1 - generation / (_SLOWING * settings.generations))
            candidate = _mutated(chance, parent, spreads, sigma, settings.mutate_percent)
        judged = (reward(candidate), candidate)
        population.append(judged)
        best = max(best, judged, key=lambda each: each[0])
    return best[1]


def _random(chance: random.Random, sigma: float, spread: float) -> tuple[float, float]:
    return math.exp(chance.gauss(0.0, sigma)), chance.gauss(0.0, spread)


def _mutated(
    chance: random.Random, parent: Candidate, spreads: Mapping[str, float], sigma: float, share: float
) -> Candidate:
    """Change a share of the layers, at least one."""
    changed = chance.sample(list(parent), max(int(share * len(parent)), 1))
    candidate = dict(parent)
    for name in changed:
        scale, shift = _random(chance, sigma, spreads[name] * sigma)
        candidate[name] = (parent[name][0] * scale, parent[name][1] + shift)
    return candidate


def save_coefficients(candidate: Mapping[str, tuple[float, float]], path: str | Path) -> None:
    """Write coefficients as JSON, weight to scale and shift."""
    write_text(Path(path), json.dumps({name: list(pair) for name, pair in candidate.items()}, indent=2) + "\n")


def load_coefficients(path: str | Path, known: Mapping[str, float]) -> Candidate:
    """Read what `save_coefficients` wrote.

    Args:
        path: The file.
        known: Weights that must be in it.

    Raises:
        ConfigError: The file cannot be read, or lacks a weight.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        found = {str(name): (float(pair[0]), float(pair[1])) for name, pair in values.items()}
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ConfigError(f"`load_ranking_coeffs_path`: cannot read coefficients from {path}: {error}") from error
    missing = [name for name in known if name not in found]
    if missing:
        raise ConfigError(
            f"`load_ranking_coeffs_path`: {path} has no coefficients for {', '.join(missing[:10])}; it was written for "
            "another network or with other settings"
        )
    return {name: found[name] for name in known}
